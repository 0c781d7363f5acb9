// Small matrices of doubles, rows of numbers. Nothing is changed in place, so what was kept stays what it was.

export const filled = (rows, columns, at) =>
  Array.from({ length: rows }, (_, i) => Array.from({ length: columns }, (_, j) => at(i, j)));
export const zeros = (rows, columns) => filled(rows, columns, () => 0);
export const identity = (size) => filled(size, size, (i, j) => (i === j ? 1 : 0));
export const map = (a, f) => a.map((row) => row.map(f));
export const zip = (a, b, f) => a.map((row, i) => row.map((x, j) => f(x, b[i][j])));
export const add = (a, b) => zip(a, b, (x, y) => x + y);
export const subtract = (a, b) => zip(a, b, (x, y) => x - y);
export const times = (a, number) => map(a, (x) => x * number);
/** a + share (b - a). */
export const lerp = (a, b, share) => zip(a, b, (x, y) => x + share * (y - x));
export const transpose = (a) => a[0].map((_, j) => a.map((row) => row[j]));
export const trace = (a) => a.reduce((total, row, i) => total + row[i], 0);
/** Sum of the products of entries. */
export const dot = (a, b) => a.reduce((total, row, i) => row.reduce((sum, x, j) => sum + x * b[i][j], total), 0);
/** The Frobenius norm. */
export const norm = (a) => Math.sqrt(dot(a, a));

export function multiply(a, b) {
  const width = b[0].length;
  return a.map((row) => {
    const out = new Array(width).fill(0);
    for (let k = 0; k < row.length; k++) {
      const x = row[k];
      const other = b[k];
      for (let j = 0; j < width; j++) out[j] += x * other[j];
    }
    return out;
  });
}

/** A matrix seen as rows along its longer side, and back. */
export const asRows = (a) => (a.length >= a[0].length ? a : transpose(a));
export const fromRows = (rows, like) => (rows.length === like.length ? rows : transpose(rows));

/** Rows scaled together to a mean squared length of one; zero stays zero. */
export function unit(rows) {
  const length = norm(rows) / Math.sqrt(rows.length);
  return length > 0 ? map(rows, (x) => x / length) : rows;
}

/** `a` made as long as a number says. */
export const asLongAs = (a, length) => times(a, length / Math.max(norm(a), 1e-30));

/** Lower triangular Z with Z (A + damping mean-diagonal I) Z^T = I: the inverse of the Cholesky factor (O15). */
export function whitener(a, damping) {
  const size = a.length;
  const mean = trace(a) / size;
  const scale = mean > 0 ? mean : 1;
  const empty = a.every((row) => row.every((x) => x === 0));
  const ridge = empty ? 1 : damping;
  const factor = zeros(size, size);
  const inverse = zeros(size, size);
  for (let i = 0; i < size; i++) {
    for (let j = 0; j <= i; j++) {
      let rest = a[i][j] / scale + (i === j ? ridge : 0);
      for (let k = 0; k < j; k++) rest -= factor[i][k] * factor[j][k];
      factor[i][j] = i === j ? Math.sqrt(rest) : rest / factor[j][j];
    }
    for (let j = 0; j <= i; j++) {
      let rest = i === j ? 1 : 0;
      for (let k = j; k < i; k++) rest -= factor[i][k] * inverse[k][j];
      inverse[i][j] = rest / factor[i][i];
    }
  }
  return times(inverse, 1 / Math.sqrt(scale));
}

// The odd quintics that `nestlearn.ops.FOUR_STEP_COEFFICIENTS` fits to four iterations.
const FITTED = [
  [8.2445, -23.4331, 16.6997],
  [4.0838, -3.0397, 0.5727],
  [3.6263, -2.7145, 0.5357],
  [2.5141, -1.8667, 0.4287],
];

/** Newton-Schulz in four iterations: the singular values of a matrix moved to about one (O10). */
export function newtonSchulz(matrix) {
  let x = times(matrix, 1 / Math.max(norm(matrix), 1e-7));
  for (const [a, b, c] of FITTED) {
    const gram = multiply(x, transpose(x));
    const bent = add(times(gram, b), times(multiply(gram, gram), c));
    x = add(times(x, a), multiply(bent, x));
  }
  return x;
}

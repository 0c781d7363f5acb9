// Small matrices of doubles, rows of numbers. Nothing is changed in place, so what was kept stays what it was.
//
// Loops rather than array methods: a life is tens of thousands of matrices of a few numbers, where a call for each
// number is most of the time, and a slider is to be answered at once.

export function filled(rows, columns, at) {
  const made = new Array(rows);
  for (let i = 0; i < rows; i++) {
    const row = new Array(columns);
    for (let j = 0; j < columns; j++) row[j] = at(i, j);
    made[i] = row;
  }
  return made;
}

export const zeros = (rows, columns) => filled(rows, columns, () => 0);
export const identity = (size) => filled(size, size, (i, j) => (i === j ? 1 : 0));
export const map = (a, f) => filled(a.length, a[0].length, (i, j) => f(a[i][j]));
export const zip = (a, b, f) => filled(a.length, a[0].length, (i, j) => f(a[i][j], b[i][j]));

/** share a + other b. */
export function mixed(a, share, b, other) {
  const made = new Array(a.length);
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i], b[i]];
    const row = new Array(x.length);
    for (let j = 0; j < x.length; j++) row[j] = share * x[j] + other * y[j];
    made[i] = row;
  }
  return made;
}

export const add = (a, b) => mixed(a, 1, b, 1);
export const subtract = (a, b) => mixed(a, 1, b, -1);

export function times(a, number) {
  const made = new Array(a.length);
  for (let i = 0; i < a.length; i++) {
    const x = a[i];
    const row = new Array(x.length);
    for (let j = 0; j < x.length; j++) row[j] = x[j] * number;
    made[i] = row;
  }
  return made;
}

/** a + share (b - a). */
export const lerp = (a, b, share) => zip(a, b, (x, y) => x + share * (y - x));
export const transpose = (a) => filled(a[0].length, a.length, (i, j) => a[j][i]);
export const trace = (a) => a.reduce((total, row, i) => total + row[i], 0);

/** Sum of the products of entries. */
export function dot(a, b) {
  let total = 0;
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i], b[i]];
    for (let j = 0; j < x.length; j++) total += x[j] * y[j];
  }
  return total;
}

/** The squared distance of two matrices. */
export function apart(a, b) {
  let total = 0;
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i], b[i]];
    for (let j = 0; j < x.length; j++) total += (x[j] - y[j]) * (x[j] - y[j]);
  }
  return total;
}

/** The Frobenius norm. */
export const norm = (a) => Math.sqrt(dot(a, a));

/** a b. */
export function multiply(a, b) {
  const [shared, width] = [b.length, b[0].length];
  const made = new Array(a.length);
  for (let i = 0; i < a.length; i++) {
    const x = a[i];
    const row = new Array(width);
    for (let j = 0; j < width; j++) {
      let sum = 0;
      for (let k = 0; k < shared; k++) sum += x[k] * b[k][j];
      row[j] = sum;
    }
    made[i] = row;
  }
  return made;
}

/** a b^T. */
export function timesTransposed(a, b) {
  const [shared, width] = [b[0].length, b.length];
  const made = new Array(a.length);
  for (let i = 0; i < a.length; i++) {
    const x = a[i];
    const row = new Array(width);
    for (let j = 0; j < width; j++) {
      const y = b[j];
      let sum = 0;
      for (let k = 0; k < shared; k++) sum += x[k] * y[k];
      row[j] = sum;
    }
    made[i] = row;
  }
  return made;
}

/** a^T b. */
export function transposedTimes(a, b) {
  const [shared, height, width] = [a.length, a[0].length, b[0].length];
  const made = new Array(height);
  for (let i = 0; i < height; i++) {
    const row = new Array(width);
    for (let j = 0; j < width; j++) {
      let sum = 0;
      for (let k = 0; k < shared; k++) sum += a[k][i] * b[k][j];
      row[j] = sum;
    }
    made[i] = row;
  }
  return made;
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

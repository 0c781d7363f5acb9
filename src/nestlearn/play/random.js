// The numbers of Python's random.Random, to the bit: what a page shows can be drawn again by code that anybody reads.
// The generator is MT19937 (Matsumoto and Nishimura 1998) with the seeding of CPython.

const WORDS = 624;

/** A generator with the methods of `random.Random(seed)` that worlds need; `seed` is a whole number below 2^32. */
export function drawn(seed) {
  const state = seeded(seed >>> 0);
  let place = WORDS;
  let spare = null;

  function word() {
    if (place === WORDS) {
      turn(state);
      place = 0;
    }
    let y = state[place++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** Uniform on [0, 1), 53 bits. */
  function random() {
    const high = word() >>> 5;
    return (high * 67108864 + (word() >>> 6)) / 9007199254740992;
  }

  /** Uniform between two numbers. */
  const uniform = (low, high) => low + (high - low) * random();

  /** Normal with mean zero and variance one; two come from one pair of uniform numbers. */
  function gauss() {
    if (spare !== null) {
      const kept = spare;
      spare = null;
      return kept;
    }
    const angle = random() * 2 * Math.PI;
    const radius = Math.sqrt(-2 * Math.log(1 - random()));
    spare = Math.sin(angle) * radius;
    return Math.cos(angle) * radius;
  }

  return { random, uniform, gauss };
}

function turn(state) {
  for (let i = 0; i < WORDS; i++) {
    const y = (state[i] & 0x80000000) | (state[(i + 1) % WORDS] & 0x7fffffff);
    state[i] = state[(i + 397) % WORDS] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
  }
}

function seeded(seed) {
  const state = new Uint32Array(WORDS);
  state[0] = 19650218;
  for (let i = 1; i < WORDS; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  let i = 1;
  const step = (factor, add) => {
    state[i] = (state[i] ^ Math.imul(state[i - 1] ^ (state[i - 1] >>> 30), factor)) + add(i);
    if (++i === WORDS) {
      state[0] = state[WORDS - 1];
      i = 1;
    }
  };
  for (let k = 0; k < WORDS; k++) step(1664525, () => seed);
  for (let k = 1; k < WORDS; k++) step(1566083941, (at) => -at);
  state[0] = 0x80000000;
  return state;
}

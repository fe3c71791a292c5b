// A random generator that repeats: the same seed gives the same numbers.

/** A small generator with a seed (mulberry32). */
export function random(seed: number) {
  let a = seed
  const next = () => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (n: number) => Math.floor(next() * n)
  const chance = (p: number) => next() < p
  const pick = <T>(of: readonly T[]): T => of[below(of.length)]!
  return { below, chance, pick }
}
export type Random = ReturnType<typeof random>

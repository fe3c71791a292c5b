// How much a test does: a little in every run, a lot where VFIO_EMU_LONG=1 asks for it (`npm run test:long`).
// Files that use it are named `*.long.test.ts`.

/** True in a long run. */
export const isLong = process.env['VFIO_EMU_LONG'] === '1'

/** One of two counts: that of every run, and that of a long one. */
export const often = (short: number, long: number): number => (isLong ? long : short)

/** Time-out of a test, in ms, that a busy machine may take long for. */
export const PATIENCE = often(60_000, 600_000)

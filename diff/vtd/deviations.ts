import type { Deviation } from '../deviation.js'

export const DEVIATIONS: readonly Deviation[] = []

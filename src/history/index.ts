// Recording what comes to a machine, doing it again, and machines saved as their history.
export type { Progress } from './keeper.js'
export { formatHistory, HistoryError, parseHistory, type Snapshot } from './log.js'
export { Diverged } from './replay.js'

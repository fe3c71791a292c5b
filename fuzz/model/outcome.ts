// What a call may answer, as the model sees it.

/** An errno by name, or 'ok'. */
export type Answer = string
/** The answers that are allowed; more than one where deferred work may or may not have run. */
export type Allowed = readonly Answer[]

export const OK: Allowed = ['ok']

/** The first refusal that applies, or OK. */
export const check = (...rows: readonly (readonly [boolean, Answer])[]): Allowed => {
  const found = rows.find(([applies]) => applies)
  return found === undefined ? OK : [found[1]]
}

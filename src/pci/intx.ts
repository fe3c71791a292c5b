/**
 * The interrupt pin of a function: a level, and the host line it goes to. Each function has a line of its
 * own, so lines are neither shared nor swizzled by bridges (PCIe 6.1.2.1, 7.5.1.1.13).
 * Next: function.ts (what opens and closes the way to the line), capabilities/msi.ts.
 */

/** The pins INTA to INTD as the Interrupt Pin register numbers them. */
export type InterruptPin = 1 | 2 | 3 | 4

/** What a host does when the line of a function changes. */
export type LineHandler = (asserted: boolean) => void

/** The host line of one function's pin. */
export class InterruptLine {
  #asserted = false
  #handler: LineHandler | undefined

  /** The level at the host: pending, not disabled, and no messages enabled instead. */
  get asserted(): boolean {
    return this.#asserted
  }

  /** Sets who is told of changes, at once when the line is asserted; undefined: nobody. */
  connect(handler: LineHandler | undefined): void {
    this.#handler = handler
    if (this.#asserted) handler?.(true)
  }

  /** The function's doing: the level as it now is. */
  drive(asserted: boolean): void {
    if (asserted === this.#asserted) return
    this.#asserted = asserted
    this.#handler?.(asserted)
  }
}

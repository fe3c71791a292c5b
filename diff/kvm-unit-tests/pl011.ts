// The UART of the board: as much of a PL011 as programs that print need. Nothing is ever received, everything is sent at
// once, so the transmitter is always ready and its interrupt, when it is let through, is always there.

/** Registers. */
const DR = 0x000
const FR = 0x018
const IMSC = 0x038
const RIS = 0x03c
const MIS = 0x040
const READY = 0x90 // both FIFOs empty
const TRANSMIT = 0x20
/** PeriphID and PCellID: what makes it a PL011 revision 1 to a bus that asks. */
const IDENTIFICATION: Readonly<Record<number, number>> = {
  4064: 0x11,
  4068: 0x10,
  4072: 0x14,
  4080: 0x0d,
  4084: 0xf0,
  4088: 0x05,
  4092: 0xb1,
}

/** A PL011 that only talks. */
export class Pl011 {
  readonly #text: (character: string) => void
  readonly #line: (level: boolean) => void
  #mask = 0

  /** `line`: its interrupt. */
  constructor(text: (character: string) => void, line: (level: boolean) => void) {
    this.#text = text
    this.#line = line
  }

  read(offset: number): number {
    switch (offset) {
      case FR:
        return READY
      case IMSC:
        return this.#mask
      case RIS:
        return TRANSMIT
      case MIS:
        return this.#mask & TRANSMIT
    }
    return IDENTIFICATION[offset] ?? 0
  }

  write(offset: number, value: number): void {
    if (offset === DR) this.#text(String.fromCharCode(value & 0xff))
    else if (offset === IMSC) {
      this.#mask = value
      this.#line((value & TRANSMIT) !== 0)
    }
  }
}

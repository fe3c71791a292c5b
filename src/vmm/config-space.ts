// The configuration space that a guest sees of a passed-through function. Most bytes are the device's,
// read through VFIO; what the guest may change without reaching the device is an emulated copy here.

import type { Sys } from '../sys/sys.js'

/** Bits the guest may write in the emulated copy; everything else of such a field keeps its value. */
interface EmulatedField {
  readonly offset: number
  readonly size: number
  readonly writable: number
}

const PCI_COMMAND = 0x04
const PCI_CAPABILITIES = 0x34
export const PCI_BAR0 = 0x10
const PCI_INTERRUPT_LINE = 0x3c
const CAP_EXPRESS = 0x10
const CAP_MSIX = 0x11
/** Device/port types (PCIe 7.5.3.2): an endpoint, and one that is integrated into the root complex. */
const ENDPOINT = 0
const INTEGRATED_ENDPOINT = 9
/** Link registers of the PCI Express capability, which an integrated endpoint does not have: offset and bytes. */
const LINK_REGISTERS = [
  [0x0c, 8],
  [0x2c, 8],
] as const
const EXT_ATS = 0x0f
const EXT_PRI = 0x13
const EXT_PASID = 0x1b
/** Where a capability goes that the function does not have. */
const ADDED_PASID = 0xff8

/** Command register bits of interest (PCIe 7.5.1.1.3). */
export const COMMAND = { MEMORY: 1 << 1, MASTER: 1 << 2 } as const

/**
 * A guest's view of one function's 4 KiB. The command register reaches the device through VFIO; base
 * addresses, MSI-X control, and the PASID, ATS and PRI controls are the VMM's own copies, because
 * the host decides those on the device itself (vsva-uapi R29).
 */
export class GuestConfigSpace {
  readonly #sys: Sys
  readonly #fd: number
  readonly #base: bigint
  readonly #shadow: Uint8Array
  readonly #view: DataView
  readonly #fields: EmulatedField[] = []
  readonly #bars: readonly number[]
  /** Offset of the MSI-X capability, 0 when there is none. */
  readonly msix: number
  /** Called after the guest changed base addresses, the command register or MSI-X control. */
  onChange: () => void = () => {}

  /**
   * `barSizes` are the six base address registers' sizes in bytes, 0 where there is none. `pasidBits`: the width of a
   * PASID capability of the VMM's own making, for a kernel that hides the function's; 0 for none.
   */
  constructor(
    sys: Sys,
    fd: number,
    region: bigint,
    bytes: number,
    barSizes: readonly number[],
    pasidBits = 0,
  ) {
    this.#sys = sys
    this.#fd = fd
    this.#base = region
    this.#bars = barSizes
    this.#shadow = new Uint8Array(4096)
    const read = new Uint8Array(bytes)
    sys.pread(fd, read, region)
    this.#shadow.set(read)
    this.#view = new DataView(this.#shadow.buffer)
    this.msix = this.#find(CAP_MSIX)
    this.#integrate(this.#find(CAP_EXPRESS))
    if (pasidBits > 0 && !this.#findExtended(EXT_PASID)) this.#addPasid(pasidBits)
    this.#fields.push({ offset: PCI_INTERRUPT_LINE, size: 1, writable: 0xff })
    if (this.msix) this.#fields.push({ offset: this.msix + 2, size: 2, writable: 0xc000 })
    const extended: [number, number, number, number][] = [
      [EXT_PASID, 6, 2, 0x0007],
      [EXT_ATS, 6, 2, 0x801f],
      [EXT_PRI, 4, 2, 0x0001],
      [EXT_PRI, 12, 4, 0xffff_ffff],
    ]
    for (const [id, at, size, writable] of extended) {
      const capability = this.#findExtended(id)
      if (!capability) continue
      this.#fields.push({ offset: capability + at, size, writable })
      this.#view.setUint8(capability + at, 0)
      this.#view.setUint8(capability + at + 1, 0)
    }
  }

  /** Sets the address bits of a base address register, as firmware does. */
  setBar(index: number, address: number): void {
    this.#view.setUint32(PCI_BAR0 + 4 * index, (address | (this.#barFlags(index) & 15)) >>> 0, true)
  }

  /** The guest's address in base address register `index`. */
  bar(index: number): number {
    return (this.#view.getUint32(PCI_BAR0 + 4 * index, true) & ~15) >>> 0
  }

  get command(): number {
    return this.#view.getUint16(PCI_COMMAND, true)
  }

  get msixEnabled(): boolean {
    return this.msix !== 0 && (this.#view.getUint16(this.msix + 2, true) & 0x8000) !== 0
  }

  get msixMasked(): boolean {
    return this.msix !== 0 && (this.#view.getUint16(this.msix + 2, true) & 0x4000) !== 0
  }

  /** The guest's read of `size` bytes; past the end of the function's space reads as zero. */
  read(offset: number, size: number): bigint {
    let v = 0n
    for (let i = size - 1; i >= 0; i--) v = (v << 8n) | BigInt(this.#byte(offset + i))
    return v
  }

  /** The guest's write of `size` bytes. */
  write(offset: number, size: number, value: bigint): void {
    let changed = false
    for (let i = 0; i < size; i++) {
      const at = offset + i
      const byte = Number((value >> BigInt(8 * i)) & 0xffn)
      if (at >= PCI_BAR0 && at < PCI_BAR0 + 24) {
        this.#writeBar(at, byte)
        changed = true
      } else if (this.#emulate(at, byte)) changed = true
    }
    if (offset < PCI_COMMAND + 2 && offset + size > PCI_COMMAND) {
      this.#passCommand(offset, size, value)
      changed = true
    }
    if (changed) this.onChange()
  }

  #byte(at: number): number {
    if (at >= 4096) return 0
    if (at >= PCI_BAR0 && at < PCI_BAR0 + 24) return this.#shadow[at]!
    for (const f of this.#fields)
      if (at >= f.offset && at < f.offset + f.size) return this.#shadow[at]!
    const one = new Uint8Array(1)
    this.#sys.pread(this.#fd, one, this.#base + BigInt(at))
    return one[0]!
  }

  #emulate(at: number, byte: number): boolean {
    for (const f of this.#fields) {
      if (at < f.offset || at >= f.offset + f.size) continue
      const mask = (f.writable >>> (8 * (at - f.offset))) & 0xff
      this.#shadow[at] = (this.#shadow[at]! & ~mask) | (byte & mask)
      return true
    }
    return false
  }

  /** Memory decode and bus mastering are the device's own: they go to the device. */
  #passCommand(offset: number, size: number, value: bigint): void {
    for (
      let at = Math.max(offset, PCI_COMMAND);
      at < Math.min(offset + size, PCI_COMMAND + 2);
      at++
    )
      this.#shadow[at] = Number((value >> BigInt(8 * (at - offset))) & 0xffn)
    const bytes = this.#shadow.slice(PCI_COMMAND, PCI_COMMAND + 2)
    this.#sys.pwrite(this.#fd, bytes, this.#base + BigInt(PCI_COMMAND))
  }

  #barFlags(index: number): number {
    return this.#view.getUint32(PCI_BAR0 + 4 * index, true)
  }

  /** A base address register keeps its flag bits and the address bits above its size (PCIe 7.5.1.2.1). */
  #writeBar(at: number, byte: number): void {
    const index = (at - PCI_BAR0) >> 2
    const size = this.#bars[index]!
    const upper = index > 0 && this.#bars[index - 1]! > 0 && (this.#barFlags(index - 1) & 6) === 4
    const mask = upper ? 0xffff_ffff : size ? ~(Math.max(size, 16) - 1) >>> 0 : 0
    const m = (mask >>> (8 * (at & 3))) & 0xff
    this.#shadow[at] = (this.#shadow[at]! & ~m) | (byte & m)
  }

  /** On the guest's root bus there is no link above the function: it is an integrated endpoint. */
  #integrate(express: number): void {
    if (express === 0 || this.#shadow[express + 2]! >> 4 !== ENDPOINT) return
    this.#shadow[express + 2] = (this.#shadow[express + 2]! & 15) | (INTEGRATED_ENDPOINT << 4)
    this.#fields.push({ offset: express + 2, size: 2, writable: 0 })
    for (const [at, bytes] of LINK_REGISTERS) {
      this.#shadow.fill(0, express + at, express + at + bytes)
      this.#fields.push({ offset: express + at, size: bytes, writable: 0 })
    }
  }

  /** Appends a PASID capability to the list of extended ones (PCIe 7.8.9): in the last bytes of the space. */
  #addPasid(width: number): void {
    let last = 0x100
    for (let n = 0; n < 480; n++) {
      const next = this.#view.getUint32(last, true) >>> 20
      if (next === 0) break
      last = next
    }
    const empty = this.#view.getUint32(last, true) === 0
    const at = empty ? last : ADDED_PASID
    if (!empty) {
      this.#view.setUint16(last + 2, (this.#view.getUint16(last + 2, true) & 15) | (at << 4), true)
      this.#fields.push({ offset: last, size: 4, writable: 0 })
    }
    this.#view.setUint32(at, EXT_PASID | (1 << 16), true)
    this.#view.setUint32(at + 4, width << 8, true)
    this.#fields.push({ offset: at, size: 6, writable: 0 })
  }

  #find(id: number): number {
    let at = this.#shadow[PCI_CAPABILITIES]! & 0xfc
    for (let n = 0; at !== 0 && n < 48; n++) {
      if (this.#shadow[at] === id) return at
      at = this.#shadow[at + 1]! & 0xfc
    }
    return 0
  }

  #findExtended(id: number): number {
    let at = 0x100
    for (let n = 0; at !== 0 && n < 480; n++) {
      const header = this.#view.getUint32(at, true)
      if ((header & 0xffff) === id) return at
      at = header >>> 20
    }
    return 0
  }
}

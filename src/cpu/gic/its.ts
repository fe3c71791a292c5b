// An Interrupt Translation Service (IHI 0069H chapter 5): commands from the guest's queue maintain tables in guest memory,
// which turn a device's event into an LPI of some redistributor. A command that cannot be carried out is skipped, as the
// architecture allows. No GICv4; GITS_TRANSLATER takes messages of devices, through `translate`, and none of processors.

import { RegisterFile } from '../../base/registers.js'
import type { AddressSpace, MmioTarget } from '../../mem/address-space.js'
import { COMMAND_SIZE, ITS_COMMAND, itsCommand, mapdCommand } from './its-commands.js'
import {
  collectionEntry,
  deviceEntry,
  ENTRY_SIZE,
  entryAddress,
  readEntry,
  translationEntry,
} from './its-tables.js'
import type { Redistributor } from './redistributor.js'
import { FIRST_LPI, GIC_FRAME, GITS, INTID_BITS } from './registers.js'

/** Device and event ids have 16 bits. */
const ID_LIMIT = 0x1_0000
const WIDE = new Set([0x0008, 0x0080, 0x0088, 0x0090, 0x0100, 0x0108])
const IIDR = 0x0004
const CREADR = 0x0090

/** Why a command or a message came to nothing. */
export type ItsRefusal =
  | 'disabled'
  | 'unknown command'
  | 'queue unreadable'
  | 'device out of range'
  | 'device not mapped'
  | 'event out of range'
  | 'event not mapped'
  | 'interrupt id out of range'
  | 'collection out of range'
  | 'collection not mapped'
  | 'no such processor'
  | 'table size out of range'
  | 'table unwritable'

/** What an ITS is built from. */
export interface ItsParts {
  readonly memory: AddressSpace
  /** By number of the processor. */
  readonly redistributors: readonly Redistributor[]
}

/** An ITS. */
export class Its implements MmioTarget {
  /** Commands skipped, and why the last was. */
  refused = 0
  lastRefusal: ItsRefusal | undefined
  readonly #memory: AddressSpace
  readonly #redistributors: readonly Redistributor[]
  readonly #file: RegisterFile<typeof GITS>
  readonly #command = itsCommand.create()
  readonly #mapd = mapdCommand.at(this.#command.bytes)
  readonly #device = deviceEntry.create()
  readonly #collection = collectionEntry.create()
  readonly #entry = translationEntry.create()
  /** Address of `#entry`. */
  #entryAt = -1

  constructor({ memory, redistributors }: ItsParts) {
    this.#memory = memory
    this.#redistributors = redistributors
    this.#file = new RegisterFile(GITS, {
      onWrite: {
        CTLR: () => this.#consume(),
        CBASER: () => {
          this.#file.regs.CREADR.OFFSET = 0
        },
        CWRITER: () => this.#consume(),
      },
    })
  }

  get enabled(): boolean {
    return this.#file.regs.CTLR.ENABLED
  }

  read(offset: number, size: 1 | 2 | 4 | 8): bigint {
    if (offset >= GIC_FRAME || offset % size !== 0) return 0n
    if (size === 4 || (size === 8 && WIDE.has(offset))) return this.#file.read(offset, size)
    return 0n
  }

  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    if (offset >= GIC_FRAME || offset % size !== 0) return
    if (size !== 4 && !(size === 8 && WIDE.has(offset))) return
    // Where tables and the queue are can be said only while nothing uses them.
    const base = (offset >= 0x0080 && offset < 0x0088) || (offset >= 0x0100 && offset < 0x0110)
    if (base && this.enabled) return
    this.#file.write(offset, size, value)
  }

  /** A device's write of `event` to GITS_TRANSLATER. */
  translate(device: number, event: number): ItsRefusal | 'delivered' {
    if (!this.enabled) return 'disabled'
    return this.#lookUp(device, event) ?? this.#deliver() ?? 'delivered'
  }

  /** KVM's read of a register: undefined where none is. */
  userRead(offset: number): bigint | undefined {
    const size = this.#sizeAt(offset)
    return size === undefined ? undefined : this.#file.read(offset, size)
  }

  /** KVM's write: CREADR can be set, and IIDR be told what it is; false where there is no register or another IIDR. */
  userWrite(offset: number, value: bigint): boolean {
    const size = this.#sizeAt(offset)
    if (size === undefined) return false
    if (offset === IIDR) return (value & 0xffff_ffffn) === this.#file.read(IIDR, 4)
    if (offset === CREADR) this.#file.regs.CREADR.OFFSET = Number((value >> 5n) & 0x7fffn)
    else this.write(offset, size, value)
    return true
  }

  /** Back to what it was when made; tables in memory stay as they are. */
  reset(): void {
    this.#file.reset()
    this.refused = 0
    this.lastRefusal = undefined
  }

  save(): Uint8Array {
    return this.#file.save()
  }

  restore(saved: Uint8Array): void {
    this.#file.restore(saved)
  }

  // Commands between CREADR and CWRITER, all of them, at once.
  #consume(): void {
    const { CBASER, CREADR, CWRITER } = this.#file.regs
    if (!this.enabled || !CBASER.VALID) return
    const length = ((CBASER.SIZE + 1) * 4096) / COMMAND_SIZE
    if (CWRITER.OFFSET >= length || CREADR.OFFSET >= length) return
    while (CREADR.OFFSET !== CWRITER.OFFSET) {
      const at = CBASER.ADDR + CREADR.OFFSET * COMMAND_SIZE
      const refusal = this.#memory.read(at, this.#command.bytes)
        ? this.#execute()
        : 'queue unreadable'
      if (refusal !== undefined) {
        this.refused++
        this.lastRefusal = refusal
      }
      CREADR.OFFSET = (CREADR.OFFSET + 1) % length
    }
  }

  #execute(): ItsRefusal | undefined {
    const c = this.#command
    switch (c.COMMAND) {
      case ITS_COMMAND.MAPD:
        return this.#mapDevice()
      case ITS_COMMAND.MAPC:
        return this.#mapCollection()
      case ITS_COMMAND.MAPTI:
        return this.#mapEvent(c.INTID)
      case ITS_COMMAND.MAPI:
        return this.#mapEvent(c.EVENT)
      case ITS_COMMAND.MOVI:
        return this.#lookUp(c.DEVICE, c.EVENT) ?? this.#move()
      case ITS_COMMAND.DISCARD:
        return this.#lookUp(c.DEVICE, c.EVENT) ?? this.#discard()
      case ITS_COMMAND.INT:
        return this.#lookUp(c.DEVICE, c.EVENT) ?? this.#deliver()
      case ITS_COMMAND.CLEAR:
        return this.#lookUp(c.DEVICE, c.EVENT) ?? this.#clear()
      case ITS_COMMAND.INV:
        return this.#lookUp(c.DEVICE, c.EVENT) ?? this.#invalidate()
      case ITS_COMMAND.INVALL: {
        const target = this.#target(c.ICID)
        if (typeof target === 'string') return target
        target.lpis.invalidate()
        return undefined
      }
      case ITS_COMMAND.MOVALL:
        return this.#moveAll()
      case ITS_COMMAND.SYNC:
        // Every command is complete when the next is looked at.
        return this.#redistributors[c.RDBASE] ? undefined : 'no such processor'
    }
    return 'unknown command'
  }

  #mapDevice(): ItsRefusal | undefined {
    const at = this.#deviceAt(this.#command.DEVICE)
    if (at < 0) return 'device out of range'
    const { V } = this.#command
    const { ITT, SIZE } = this.#mapd
    if (V && SIZE >= INTID_BITS) return 'table size out of range'
    this.#device.words.fill(0)
    if (V) {
      this.#device.V = true
      this.#device.ITT = BigInt(ITT / 256)
      this.#device.SIZE = SIZE
    }
    return this.#store(at, this.#device.bytes)
  }

  #mapCollection(): ItsRefusal | undefined {
    const { ICID, RDBASE, V } = this.#command
    const at = entryAddress(this.#memory, this.#file.regs.BASER1, ICID)
    if (at < 0) return 'collection out of range'
    if (V && this.#redistributors[RDBASE] === undefined) return 'no such processor'
    this.#collection.words.fill(0)
    if (V) Object.assign(this.#collection, { V, RDBASE, ICID })
    return this.#store(at, this.#collection.bytes)
  }

  #mapEvent(intid: number): ItsRefusal | undefined {
    const { DEVICE, EVENT, ICID } = this.#command
    const refusal = this.#locate(DEVICE, EVENT)
    if (refusal !== undefined) return refusal
    if (intid < FIRST_LPI || intid >= 2 ** INTID_BITS) return 'interrupt id out of range'
    if (entryAddress(this.#memory, this.#file.regs.BASER1, ICID) < 0)
      return 'collection out of range'
    this.#entry.words.fill(0)
    this.#entry.INTID = intid
    this.#entry.ICID = ICID
    return this.#store(this.#entryAt, this.#entry.bytes)
  }

  #move(): ItsRefusal | undefined {
    const from = this.#target(this.#entry.ICID)
    if (typeof from === 'string') return from
    const to = this.#target(this.#command.ICID)
    if (typeof to === 'string') return to
    this.#entry.ICID = this.#command.ICID
    const refusal = this.#store(this.#entryAt, this.#entry.bytes)
    if (refusal === undefined && from.lpis.clear(this.#entry.INTID)) to.lpis.set(this.#entry.INTID)
    return refusal
  }

  #discard(): ItsRefusal | undefined {
    const refusal = this.#clear()
    if (refusal !== undefined) return refusal
    this.#entry.words.fill(0)
    return this.#store(this.#entryAt, this.#entry.bytes)
  }

  #deliver(): ItsRefusal | undefined {
    const target = this.#target(this.#entry.ICID)
    if (typeof target === 'string') return target
    target.lpis.set(this.#entry.INTID)
    return undefined
  }

  #clear(): ItsRefusal | undefined {
    const target = this.#target(this.#entry.ICID)
    if (typeof target === 'string') return target
    target.lpis.clear(this.#entry.INTID)
    return undefined
  }

  #invalidate(): ItsRefusal | undefined {
    const target = this.#target(this.#entry.ICID)
    if (typeof target === 'string') return target
    target.lpis.invalidate(this.#entry.INTID)
    return undefined
  }

  #moveAll(): ItsRefusal | undefined {
    const from = this.#redistributors[this.#command.RDBASE]
    const to = this.#redistributors[this.#command.RDBASE2]
    if (from === undefined || to === undefined) return 'no such processor'
    if (from !== to) to.lpis.takeAll(from.lpis)
    return undefined
  }

  #deviceAt(device: number): number {
    return device < ID_LIMIT ? entryAddress(this.#memory, this.#file.regs.BASER0, device) : -1
  }

  // Finds the translation table entry of a device's event and reads it, valid or not.
  #locate(device: number, event: number): ItsRefusal | undefined {
    const at = this.#deviceAt(device)
    if (at < 0) return 'device out of range'
    if (!readEntry(this.#memory, at, this.#device.words) || !this.#device.V)
      return 'device not mapped'
    if (event >= Math.min(2 ** (this.#device.SIZE + 1), ID_LIMIT)) return 'event out of range'
    this.#entryAt = Number(this.#device.ITT) * 256 + event * ENTRY_SIZE
    readEntry(this.#memory, this.#entryAt, this.#entry.words)
    return undefined
  }

  #lookUp(device: number, event: number): ItsRefusal | undefined {
    const refusal = this.#locate(device, event)
    return refusal ?? (this.#entry.INTID === 0 ? 'event not mapped' : undefined)
  }

  #target(icid: number): Redistributor | ItsRefusal {
    const at = entryAddress(this.#memory, this.#file.regs.BASER1, icid)
    if (at < 0) return 'collection out of range'
    if (!readEntry(this.#memory, at, this.#collection.words) || !this.#collection.V)
      return 'collection not mapped'
    return this.#redistributors[this.#collection.RDBASE] ?? 'no such processor'
  }

  #store(at: number, bytes: Uint8Array): ItsRefusal | undefined {
    return this.#memory.write(at, bytes) ? undefined : 'table unwritable'
  }

  #sizeAt(offset: number): 4 | 8 | undefined {
    if (WIDE.has(offset)) return 8
    const known = offset === 0 || offset === IIDR || (offset >= 0xffd0 && offset < GIC_FRAME)
    return known && offset % 4 === 0 ? 4 : undefined
  }
}

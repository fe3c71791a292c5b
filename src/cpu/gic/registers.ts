// GICv3 registers as tables (IHI 0069H chapter 12): what there is one of. Registers with a field for each interrupt are
// families (families.ts). One Security state (GICD_CTLR.DS = 1), affinity routing always on, no GICv4, no extended ranges.

import { bank, bits, flag, page, r32, r64, u64 } from '../../base/fields.js'

/** Bytes of a frame of the distributor, of each frame of a redistributor and of an ITS. */
export const GIC_FRAME = 0x1_0000
/** Bytes of a redistributor: RD_base, then SGI_base. */
export const REDISTRIBUTOR_SIZE = 2 * GIC_FRAME
/** Bytes of an ITS: control registers, then the translation frame. */
export const ITS_SIZE = 2 * GIC_FRAME

/** First LPI. */
export const FIRST_LPI = 8192
/** Bits of an interrupt id. */
export const INTID_BITS = 16
/** What IAR and HPPIR read when no interrupt is for the reader. */
export const SPURIOUS = 1023
/** Bits of a priority: the upper five of eight. */
export const PRIORITY_MASK = 0xf8
export const PRIORITY_BITS = 5
/** Priority of nothing at all. */
export const IDLE_PRIORITY = 0xff

const identification = { PIDR2: bits(7, 0, 'ro', 'architecture 3, JEDEC code used, designer Arm') }
const cacheability = (hi: number, lo: number) =>
  bits(hi, lo, 'rw', 'cacheability; stored, no effect')
const shareability = bits(11, 10, 'rw', 'shareability; stored, no effect')

/** Distributor. TYPER is filled in with what the GIC was made with. */
// biome-ignore format: table
export const GICD = bank('GIC distributor', {
  CTLR:  r32(0x0000, '12.9', {
    RWP:        flag(31, 'ro', 'a write is not yet effective; never here'),
    E1NWF:      flag(7, 'ro', 'wakes the owners of 1-of-N interrupts; there are none'),
    DS:         flag(6, 'ro', 'one Security state'),
    ARE:        flag(4, 'ro', 'affinity routing'),
    ENABLEGRP1: flag(1, 'rw', 'interrupts of group 1 are forwarded'),
    ENABLEGRP0: flag(0, 'rw', 'interrupts of group 0 are forwarded'),
  }, 0x50n),
  TYPER: r32(0x0004, '12.9', {
    NO1N:          flag(25, 'ro', 'no 1-of-N distribution of SPIs'),
    A3V:           flag(24, 'ro', 'affinity level 3 may be non-zero'),
    IDBITS:        bits(23, 19, 'ro', 'bits of an interrupt id less one'),
    LPIS:          flag(17, 'ro', 'LPIs'),
    MBIS:          flag(16, 'ro', 'SPIs by message'),
    SECURITYEXTN:  flag(10, 'ro', 'two Security states'),
    ITLINESNUMBER: bits(4, 0, 'ro', '32 (N + 1) interrupts, SPIs and the 32 below them'),
  }, 0x0278_0000n),
  IIDR:  r32(0x0008, '12.9', {
    PRODUCTID:   bits(31, 24, 'ro', 'K: the GIC that KVM makes'),
    VARIANT:     bits(19, 16, 'ro', 'major revision'),
    REVISION:    bits(15, 12, 'ro', 'minor revision'),
    IMPLEMENTER: bits(11, 0, 'ro', 'Arm'),
  }, 0x4b00_343bn),
  PIDR2: r32(0xffe8, '12.9', identification, 0x3bn),
}, GIC_FRAME)

/** Redistributor, frame RD_base. */
// biome-ignore format: table
export const GICR = bank('GIC redistributor', {
  CTLR:      r32(0x0000, '12.11', {
    UWP:        flag(31, 'ro', 'a write was not yet passed on; never here'),
    RWP:        flag(3, 'ro', 'a write is not yet effective; never here'),
    IR:         flag(2, 'ro', 'INVLPIR and INVALLR'),
    CES:        flag(1, 'ro', 'ENABLELPIS can be cleared'),
    ENABLELPIS: flag(0, 'rw', 'LPIs; when set the pending table is read, when cleared written'),
  }, 6n),
  IIDR:      r32(0x0004, '12.11', {
    PRODUCTID:   bits(31, 24, 'ro', 'K: the GIC that KVM makes'),
    VARIANT:     bits(19, 16, 'ro', 'major revision'),
    REVISION:    bits(15, 12, 'ro', 'minor revision'),
    IMPLEMENTER: bits(11, 0, 'ro', 'Arm'),
  }, 0x4b00_343bn),
  TYPER:     r64(0x0008, '12.11', {
    AFFINITY:     bits(63, 32, 'ro', 'Aff3.Aff2.Aff1.Aff0 of its processor'),
    COMMONLPIAFF: bits(25, 24, 'ro', '0: all redistributors share a configuration table'),
    PROCESSOR:    bits(23, 8, 'ro', 'number of the processor'),
    LAST:         flag(4, 'ro', 'no redistributor in the next frames'),
    DIRECTLPI:    flag(3, 'ro', 'SETLPIR and CLRLPIR'),
    PLPIS:        flag(0, 'ro', 'physical LPIs'),
  }),
  WAKER:     r32(0x0014, '12.11', {
    CHILDRENASLEEP: flag(2, 'ro', 'nothing is forwarded; follows PROCESSORSLEEP'),
    PROCESSORSLEEP: flag(1, 'rw', 'the processor is not to be interrupted'),
  }),
  PROPBASER: r64(0x0070, '12.11', {
    OUTERCACHE: cacheability(58, 56),
    ADDR:       page(51, 12, 'rw', 'configuration table: a byte for each LPI'),
    SHAREABILITY: shareability,
    INNERCACHE: cacheability(9, 7),
    IDBITS:     bits(4, 0, 'rw', 'bits of an interrupt id less one; more than 15 count as 15'),
  }),
  PENDBASER: r64(0x0078, '12.11', {
    PTZ:        flag(62, 'wo', 'the pending table is all zero'),
    OUTERCACHE: cacheability(58, 56),
    ADDR:       page(51, 16, 'rw', 'pending table: a bit for each interrupt id'),
    SHAREABILITY: shareability,
    INNERCACHE: cacheability(9, 7),
  }),
  INVLPIR:   r64(0x00a0, '12.11', { INTID: bits(31, 0, 'wo', 'its configuration is read anew') }),
  INVALLR:   r64(0x00b0, '12.11', { ANY: u64(63, 0, 'wo', 'every configuration is read anew') }),
  SYNCR:     r32(0x00c0, '12.11', { BUSY: flag(0, 'ro', 'never') }),
  PIDR2:     r32(0xffe8, '12.11', identification, 0x3bn),
}, GIC_FRAME)

const queueAttributes = {
  INNERCACHE: cacheability(61, 59),
  OUTERCACHE: cacheability(55, 53),
  SHAREABILITY: shareability,
}
const table = (type: number) => ({
  VALID: flag(63, 'rw', 'memory is there'),
  INDIRECT: flag(62, type === 1 ? 'rw' : 'ro', 'a table of the addresses of tables'),
  INNERCACHE: cacheability(61, 59),
  TYPE: bits(58, 56, 'ro', '1 devices, 4 collections'),
  OUTERCACHE: cacheability(55, 53),
  ENTRYSIZE: bits(52, 48, 'ro', 'bytes of an entry less one'),
  ADDR: bits(47, 16, 'rw', 'address bits 47:16'),
  ADDRLOW: bits(15, 12, 'rw', 'address bits 15:12; with 64 KB pages bits 51:48'),
  SHAREABILITY: shareability,
  PAGESIZE: bits(9, 8, 'rw', '0 4 KB, 1 16 KB, 2 64 KB'),
  SIZE: bits(7, 0, 'rw', 'pages less one'),
})
/** 64 KB pages until software says otherwise: the size that KVM's ITS has. */
const TABLE_RESET = (type: bigint) => (type << 56n) | (7n << 48n) | 0x200n

/** ITS, control frame; the translation frame is a doorbell of devices' and reads zero. */
// biome-ignore format: table
export const GITS = bank('GIC ITS', {
  CTLR:    r32(0x0000, '12.19', {
    QUIESCENT: flag(31, 'ro', 'nothing is under way'),
    ENABLED:   flag(0, 'rw', 'commands are consumed and events translated'),
  }, 0x8000_0000n),
  IIDR:    r32(0x0004, '12.19', {
    PRODUCTID:   bits(31, 24, 'ro', 'K: the ITS that KVM makes'),
    VARIANT:     bits(19, 16, 'ro', 'major revision'),
    REVISION:    bits(15, 12, 'ro', 'format of its tables'),
    IMPLEMENTER: bits(11, 0, 'ro', 'Arm'),
  }, 0x4b00_043bn),
  TYPER:   r64(0x0008, '12.19', {
    HCC:          bits(31, 24, 'ro', 'collections without memory'),
    PTA:          flag(19, 'ro', 'redistributors are named by address; here by number'),
    DEVBITS:      bits(17, 13, 'ro', 'bits of a device id less one'),
    IDBITS:       bits(12, 8, 'ro', 'bits of an event id less one'),
    ITTENTRYSIZE: bits(7, 4, 'ro', 'bytes of a translation table entry less one'),
    PHYSICAL:     flag(0, 'ro', 'physical LPIs'),
  }, 0x1_ef71n),
  CBASER:  r64(0x0080, '12.19', {
    VALID: flag(63, 'rw', 'memory is there'),
    ...queueAttributes,
    ADDR:  page(51, 12, 'rw', 'command queue'),
    SIZE:  bits(7, 0, 'rw', '4 KB pages less one'),
  }),
  CWRITER: r64(0x0088, '12.19', {
    OFFSET: bits(19, 5, 'rw', 'after the last command, in commands'),
    RETRY:  flag(0, 'wo', 'goes on after a stall; there are none'),
  }),
  CREADR:  r64(0x0090, '12.19', {
    OFFSET:  bits(19, 5, 'ro', 'next command, in commands'),
    STALLED: flag(0, 'ro', 'a command failed; never here: such a command is skipped'),
  }),
  BASER0:  r64(0x0100, '12.19', table(1), TABLE_RESET(1n)),
  BASER1:  r64(0x0108, '12.19', table(4), TABLE_RESET(4n)),
  PIDR2:   r32(0xffe8, '12.19', identification, 0x3bn),
}, GIC_FRAME)

/** Offset of GITS_TRANSLATER from the start of the ITS. */
export const GITS_TRANSLATER = 0x1_0040

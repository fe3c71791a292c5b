// A story for every VT-d fault reason that a request can raise: tables set up, then the request made.
import type { FaultName } from '../../../src/iommu/vtd/fault-reasons.js'
import {
  BDF,
  type Bench,
  type BenchOptions,
  FULL,
  GCMD,
  P,
  R2,
  REG,
  RW,
  US,
  W2,
  XD,
} from './bench.js'

export const NOWHERE = 0x7000_0000n // no RAM there
export const LEAF = 0x50_0000n
export const VA = 0x4000_5000n

/** What a case does: sets tables up, then makes the request; answers the fault's name. */
export type Story = (b: Bench) => number | string
export type Row = readonly [
  name: FaultName,
  code: number,
  section: string,
  story: Story,
  options?: BenchOptions,
]

const root = (b: Bench, at: bigint | number, mode = 0n) => {
  b.w64(REG.RTADDR, BigInt(at) | mode)
  b.command(GCMD.SRTP)
  b.enable()
}
const legacy = (b: Bench, leaf: bigint | undefined, o: Parameters<Bench['legacy']>[1] = {}) => {
  const table = b.alloc()
  if (leaf !== undefined) b.map2(table, VA, leaf)
  const context = b.legacy(table, o)
  b.enable()
  return { table, context }
}
/** Scalable mode with PASID 5 behind BDF, enabled. */
export const scalable = (b: Bench, low?: bigint, rid?: bigint) => {
  const tables = b.scalable(BDF, low, rid)
  b.enable()
  return tables
}
export const first = (b: Bench, leaf: bigint | undefined, flags = 0n, table = FULL) => {
  const { directory } = scalable(b)
  const fs = b.alloc()
  if (leaf !== undefined) b.map(fs, VA, leaf, { table })
  b.firstStage(directory, 5, fs, 1, flags)
  return fs
}
/** From here on flags in tables cannot be written. */
const readOnly = (b: Bench) => {
  b.memory.orEntry = () => false
}
const second = (b: Bench, leaf: bigint | undefined) => {
  const { directory } = scalable(b)
  const ss = b.alloc()
  if (leaf !== undefined) b.map2(ss, VA, leaf)
  b.secondStage(directory, 5, ss)
  return ss
}
/** Nested: GPA = HPA for the first 16 MiB in 4 KiB pages where `rights` says so. */
export const nested = (b: Bench, leaf: bigint, rights: (gpa: number) => bigint = () => R2 | W2) => {
  const { directory } = scalable(b)
  const fs = b.alloc()
  b.map(fs, VA, leaf)
  const ss = b.alloc()
  for (let gpa = 0x10_0000; gpa < 0x14_0000; gpa += 4096) {
    const r = rights(gpa)
    if (r) b.map2(ss, BigInt(gpa), BigInt(gpa) | r)
  }
  b.map2(ss, LEAF, LEAF | rights(Number(LEAF)))
  b.nested(directory, 5, fs, ss)
  return { fs, ss }
}
export const read: Story = b => b.dma(VA, { pasid: 5 })
const write: Story = b => b.dma(VA, { pasid: 5, write: true })
const plain: Story = b => b.dma(VA)
const plainWrite: Story = b => b.dma(VA, { write: true })

// biome-ignore format: table
export const rows: readonly Row[] = [
  // Legacy mode
  ['rootEntryUnreadable',    0x08, 'LRT.1', b => { root(b, NOWHERE); return plain(b) }],
  ['rootEntryNotPresent',    0x01, 'LRT.2', b => { root(b, b.alloc()); return plain(b) }],
  ['rootEntryReserved',      0x0a, 'LRT.3', b => { const t = b.alloc(); b.store(t + 16, BigInt(b.alloc()) | 0x11n); root(b, t); return plain(b) }],
  ['contextEntryUnreadable', 0x09, 'LCT.1', b => { const t = b.alloc(); b.store(t + 16, NOWHERE | 1n); root(b, t); return plain(b) }],
  ['contextEntryNotPresent', 0x02, 'LCT.2', b => { legacy(b, undefined, { low: 0n }); return plain(b) }],
  ['contextEntryReserved',   0x0b, 'LCT.3', b => { legacy(b, undefined, { low: 0x21n }); return plain(b) }],
  ['contextEntryInvalid',    0x03, 'LCT.4.1', b => { legacy(b, LEAF | 3n, { aw: 0n }); return plain(b) }],
  ['contextEntryInvalid',    0x03, 'LCT.4.2', b => { legacy(b, LEAF | 3n, { tt: 3n }); return plain(b) }],
  ['contextEntryInvalid',    0x03, 'LCT.4.2 without device TLBs', b => { legacy(b, LEAF | 3n, { tt: 1n }); return plain(b) }, { config: { deviceTlb: false } }],
  ['contextEntryInvalid',    0x03, 'LCT.4.3', b => { b.legacy(Number(NOWHERE)); b.enable(); return plain(b) }],
  ['translationTypeBlocked', 0x0d, 'LCT.5', b => { legacy(b, LEAF | 3n); return b.dma(LEAF, { at: 2 }) }],
  ['pagingEntryUnreadable',  0x07, 'LSS.1', b => { const { table } = legacy(b, undefined); b.store(table, NOWHERE | 3n); return plain(b) }],
  ['pagingEntryReserved',    0x0c, 'LSS.2', b => { legacy(b, LEAF | 3n | (1n << 50n)); return plain(b) }],
  ['addressBeyondWidth',     0x04, 'LGN.1.1', b => { legacy(b, LEAF | 3n); return b.dma(1n << 48n) }],
  ['addressBeyondWidth',     0x04, 'LGN.1.1 with AW 39', b => { legacy(b, undefined, { aw: 1n }); return b.dma(1n << 39n) }],
  ['addressBeyondWidth',     0x04, 'LGN.1.2', b => { legacy(b, LEAF | 3n, { tt: 1n }); return b.dma(1n << 48n, { at: 2 }) }],
  ['addressBeyondWidth',     0x04, 'LGN.1.3', b => { legacy(b, undefined, { tt: 2n }); return b.dma(1n << 48n) }],
  ['writeNotPermitted',      0x05, 'LGN.2', b => { legacy(b, LEAF | R2); return plainWrite(b) }],
  ['writeNotPermitted',      0x05, 'LGN.2 nothing mapped', b => { legacy(b, undefined); return plainWrite(b) }],
  ['readNotPermitted',       0x06, 'LGN.3', b => { legacy(b, LEAF | W2); return plain(b) }],
  ['outputIsInterruptRange', 0x0e, 'LGN.4', b => { legacy(b, 0xfee0_0000n | 3n); return plain(b) }],
  ['notAnInterrupt',         0x29, '5.1.4.1', b => { legacy(b, LEAF | 3n); return b.dma(0xfee0_0000n) }],
  // Root table address register
  ['translationModeInvalid', 0x30, 'RTA.1.2', b => { root(b, b.alloc(), 0x800n); return plain(b) }],
  ['translationModeInvalid', 0x30, 'RTA.1.3', b => { root(b, b.alloc(), 0x400n); return plain(b) }, { config: { scalableMode: false } }],
  ['translationModeInvalid', 0x30, 'RTA.1.1', b => { root(b, b.alloc(), 0xc00n); return plain(b) }, { config: { abortDma: false } }],
  ['legacyModeWithPasid',    0x31, 'RTA.2', b => { legacy(b, LEAF | 3n); return read(b) }],
  ['abortDmaMode',           0x33, 'RTA.4', b => { root(b, b.alloc(), 0xc00n); return plain(b) }],
  // Scalable mode: root and context
  ['smRootEntryUnreadable',  0x38, 'SRT.1', b => { root(b, NOWHERE, 0x400n); return read(b) }],
  ['smRootEntryNotPresent',  0x39, 'SRT.2', b => { const t = scalable(b); b.store(t.root + 16, 0n); return read(b) }],
  ['smRootEntryNotPresent',  0x39, 'SRT.2 upper', b => { scalable(b); return b.dma(VA, { pasid: 5, requester: BDF | 0x80 }) }],
  ['smRootEntryReserved',    0x3a, 'SRT.3', b => { const t = scalable(b); b.store(t.root + 16, b.load(t.root + 16) | 8n); return read(b) }],
  ['smContextUnreadable',    0x40, 'SCT.1', b => { const t = scalable(b); b.store(t.root + 16, NOWHERE | 1n); return read(b) }],
  ['smContextNotPresent',    0x41, 'SCT.2', b => { const t = scalable(b); b.store(t.context, 0n); return read(b) }],
  ['smContextReserved',      0x42, 'SCT.3', b => { scalable(b, 0x3cn); return read(b) }],
  ['smContextReserved',      0x42, 'SCT.3 high', b => { const t = scalable(b); b.store(t.context + 24, 1n); return read(b) }],
  ['smContextReserved',      0x42, 'SCT.3 PRE without PRS', b => { scalable(b); return read(b) }, { config: { pageRequests: false } }],
  ['smContextReserved',      0x42, 'SCT.3 RID_PASID without RPS', b => { scalable(b, undefined, 3n); return read(b) }, { config: { ridPasid: false } }],
  ['contextEntryReserved',   0x0b, 'LCT.3 domain id too wide', b => { legacy(b, LEAF | 3n, { did: 0x100n }); return plain(b) }, { config: { domainIdBits: 8 } }],
  ['pasidEntryReserved',     0x5a, 'SPT.3 domain id too wide', b => { const t = scalable(b); b.firstStage(t.directory, 5, b.alloc(), 0x100); return read(b) }, { config: { domainIdBits: 8 } }],
  ['smContextInvalid',       0x43, 'SCT.4.1', b => { scalable(b, 0b11000n); return read(b) }],
  ['smContextInvalid',       0x43, 'SCT.4.2', b => { scalable(b, 0b11100n, 0x2000n); return read(b) }],
  ['deviceTlbDisabled',      0x44, 'SCT.5', b => { scalable(b, 0b01000n); return b.dma(LEAF, { at: 2 }) }],
  ['pasidDisabled',          0x45, 'SCT.6', b => { scalable(b, 0b10100n); return read(b) }],
  ['pasidBeyondDirectory',   0x46, 'SCT.7', b => { scalable(b); return b.dma(VA, { pasid: 0x2000 }) }],
  ['pasidIsRidPasid',        0x48, 'SCT.9', b => { scalable(b, undefined, 5n); return read(b) }],
  // PASID directory and table
  ['pasidDirectoryUnreadable', 0x50, 'SPD.1', b => { const t = scalable(b); b.store(t.context, NOWHERE | 0x1dn); return read(b) }],
  ['pasidDirectoryNotPresent', 0x51, 'SPD.2', b => { scalable(b); return read(b) }],
  ['pasidDirectoryReserved', 0x52, 'SPD.3', b => { const t = scalable(b); b.store(t.directory, BigInt(b.alloc()) | 0x5n); return read(b) }],
  ['pasidEntryUnreadable',   0x58, 'SPT.1', b => { const t = scalable(b); b.store(t.directory, NOWHERE | 1n); return read(b) }],
  ['pasidEntryNotPresent',   0x59, 'SPT.2', b => { const t = scalable(b); b.pasidEntry(t.directory, 5, [0n]); return read(b) }],
  ['pasidEntryReserved',     0x5a, 'SPT.3', b => { const t = scalable(b); b.pasidEntry(t.directory, 5, [0x441n, 1n, 0n]); return read(b) }],
  ['pasidEntryReserved',     0x5a, 'SPT.3 SSADE without SSADS', b => { const t = scalable(b); b.pasidEntry(t.directory, 5, [0x289n, 1n, 0n]); return read(b) }, { config: { secondStageAccessedDirty: false } }],
  ['pasidEntryReserved',     0x5a, 'SPT.3 EAFE without EAFS', b => { first(b, LEAF | FULL, 0x80n); return read(b) }, { config: { extendedAccessed: false } }],
  ['pasidEntryReserved',     0x5a, 'SPT.3 PWSNP without SMPWCS', b => { const t = scalable(b); b.pasidEntry(t.directory, 5, [0x41n, 1n << 23n, BigInt(b.alloc())]); return read(b) }, { config: { pageWalkSnoop: false } }],
  ['pasidEntryReserved',     0x5a, 'SPT.3 high', b => { const t = scalable(b); const at = b.pasidEntry(t.directory, 5, [0x41n, 1n, BigInt(b.alloc())]); b.store(at + 56, 1n); return read(b) }],
  ['pasidEntryInvalid',      0x5b, 'SPT.4.1', b => { const t = scalable(b); b.pasidEntry(t.directory, 5, [0x81n, 1n, 0n]); return read(b) }],
  ['pasidEntryInvalid',      0x5b, 'SPT.4.2', b => { const t = scalable(b); b.pasidEntry(t.directory, 5, [0x1n, 1n, 0n]); return read(b) }],
  ['pasidEntryInvalid',      0x5b, 'SPT.4.2 nested without NEST', b => { nested(b, LEAF | FULL); return read(b) }, { config: { nesting: false } }],
  ['pasidEntryInvalid',      0x5b, 'SPT.4.3', b => { first(b, LEAF | FULL, 4n); return read(b) }],
  ['pasidEntryInvalid',      0x5b, 'SPT.4.4', b => { const t = scalable(b); b.pasidEntry(t.directory, 5, [1n | (1n << 2n) | (3n << 6n), 1n, 1n << 39n]); return read(b) }],
  ['executeRequestDisabled', 0x5c, 'SPT.5', b => { first(b, LEAF | FULL); return b.dma(VA, { pasid: 5, execute: true }) }],
  ['supervisorDisabled',     0x5d, 'SPT.6', b => { first(b, LEAF | FULL); return b.dma(VA, { pasid: 5, privileged: true }) }],
  ['supervisorDisabled',     0x5d, 'SPT.6 by RID_PRIV', b => { const t = scalable(b, undefined, 1n << 20n); b.firstStage(t.directory, 0, b.alloc()); return plain(b) }],
  // First stage
  ['fsTopEntryUnreadable',   0x73, 'SFS.4', b => { const t = scalable(b); b.firstStage(t.directory, 5, Number(NOWHERE)); return read(b) }],
  ['fsEntryUnreadable',      0x70, 'SFS.1', b => { const fs = first(b, undefined); b.store(fs, NOWHERE | FULL); return read(b) }],
  ['fsEntryNotPresent',      0x71, 'SFS.2', b => { first(b, 0n); return read(b) }],
  ['fsEntryReserved',        0x72, 'SFS.3', b => { first(b, LEAF | FULL | (1n << 49n)); return read(b) }],
  ['notCanonical',           0x80, 'SGN.1', b => { first(b, LEAF | FULL); return b.dma(1n << 47n, { pasid: 5 }) }],
  ['userAccessToSupervisor', 0x81, 'SGN.2', b => { first(b, LEAF | P | RW); return read(b) }],
  ['executeNotPermitted',    0x82, 'SGN.3', b => { first(b, LEAF | FULL | XD, 0x22n); return b.dma(VA, { pasid: 5, execute: true }) }],
  ['smWriteNotPermitted',    0x85, 'SGN.6', b => { first(b, LEAF | P | US); return write(b) }],
  ['smWriteNotPermitted',    0x85, 'SGN.6 WPE', b => { first(b, LEAF | P | US, 0x11n); return b.dma(VA, { pasid: 5, write: true, privileged: true }) }],
  ['smOutputIsInterruptRange', 0x87, 'SGN.8.1', b => { first(b, 0xfee0_1000n | FULL); return read(b) }],
  ['smOutputIsInterruptRange', 0x87, 'SGN.8.1 pass-through', b => { const t = scalable(b); b.pasidEntry(t.directory, 5, [0x101n, 1n, 0n]); return b.dma(0xfee0_0000n, { pasid: 5 }) }],
  ['smOutputIsInterruptRange', 0x87, 'SGN.8.3', b => { scalable(b); return b.dma(0xfee0_0000n, { at: 2 }) }],
  // Second stage
  ['ssTopEntryUnreadable',   0x7b, 'SSS.4', b => { const t = scalable(b); b.secondStage(t.directory, 5, Number(NOWHERE)); return read(b) }],
  ['ssEntryUnreadable',      0x78, 'SSS.1', b => { const ss = second(b, undefined); b.store(ss, NOWHERE | 3n); return read(b) }],
  ['ssEntryNotPresent',      0x79, 'SSS.2', b => { second(b, undefined); return read(b) }],
  ['ssEntryReserved',        0x7a, 'SSS.3', b => { second(b, LEAF | 3n | (1n << 49n)); return read(b) }],
  ['smReadNotPermitted',     0x86, 'SGN.7', b => { second(b, LEAF | W2); return read(b) }],
  ['smWriteNotPermitted',    0x85, 'SGN.6 second stage', b => { second(b, LEAF | R2); return write(b) }],
  ['smAddressBeyondWidth',   0x84, 'SGN.5', b => { second(b, LEAF | 3n); return b.dma(1n << 48n, { pasid: 5 }) }],
  ['hostAddressBeyondWidth', 0x83, 'SGN.4.1', b => { scalable(b); return b.dma(1n << 48n, { at: 2 }) }],
  ['hostAddressBeyondWidth', 0x83, 'SGN.4.2', b => { const t = scalable(b); b.pasidEntry(t.directory, 5, [0x101n, 1n, 0n]); return b.dma(1n << 48n, { pasid: 5 }) }],
  ['pasidBeyondSize',        0x89, 'SGN.10', b => { scalable(b); return b.dma(VA, { pasid: 0x100 }) }, { config: { pasidBits: 8 } }],
  // Memory that takes reads and refuses writes
  ['fsFlagUpdateFailed',     0x91, 'SFS.10', b => { first(b, LEAF | FULL); readOnly(b); return read(b) }],
  ['fsFlagUpdateFailed',     0x91, 'SFS.10 of a write', b => { first(b, LEAF | FULL); read(b); readOnly(b); return write(b) }],
  ['ssFlagUpdateFailed',     0x7d, 'SSS.6', b => { const t = scalable(b); const ss = b.alloc(); b.map2(ss, VA, LEAF | 3n); const at = b.secondStage(t.directory, 5, ss); b.store(at, b.load(at) | 0x200n); readOnly(b); return read(b) }],
  // Nested
  ['fsAddressBeyondWidth',   0x74, 'SFS.5', b => { nested(b, (1n << 50n) | FULL); return read(b) }],
  ['ssEntryNotPresent',      0x79, 'SSS.2 of a first-stage table', b => { nested(b, LEAF | FULL, gpa => (gpa === Number(LEAF) ? 3n : 0n)); return read(b) }],
  ['fsTopEntryNotReadable',  0x75, 'SFS.6', b => { nested(b, LEAF | FULL, gpa => (gpa === Number(LEAF) ? 3n : W2)); return read(b) }],
  ['fsEntryNotReadable',     0x76, 'SFS.7', b => { const n = nested(b, LEAF | FULL); const at = b.load(n.fs) & ~0xfffn; b.map2(n.ss, at, at | W2); return read(b) }],
  ['fsEntryNotWritable',     0x77, 'SFS.8', b => { nested(b, LEAF | FULL, gpa => (gpa === Number(LEAF) ? 3n : R2)); return read(b) }],
  ['ssEntryNotPresent',      0x79, 'SSS.2 of the final page', b => { nested(b, LEAF | FULL, gpa => (gpa === Number(LEAF) ? 0n : 3n)); return read(b) }],
  ['smWriteNotPermitted',    0x85, 'SGN.6 of the final page', b => { nested(b, LEAF | FULL, gpa => (gpa === Number(LEAF) ? R2 : 3n)); return write(b) }],
]

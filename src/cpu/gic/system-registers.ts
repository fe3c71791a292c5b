// ICC_*_EL1 by key, for the processor's table of system registers (IHI 0069H 12.2). A register without `read` or `write`
// is UNDEFINED to that access. KVM's register list is a part of it.

import { systemKey } from '../a64/ports.js'
import type { CpuInterface } from './cpu-interface.js'

/** How a system register is read and written; accesses that are not there are UNDEFINED. */
export interface SystemRegister {
  read?(): bigint
  write?(value: bigint): void
}

// biome-ignore format: table
export const ICC = {
  PMR:     systemKey(3, 0, 4, 6, 0),
  IAR0:    systemKey(3, 0, 12, 8, 0),
  EOIR0:   systemKey(3, 0, 12, 8, 1),
  HPPIR0:  systemKey(3, 0, 12, 8, 2),
  BPR0:    systemKey(3, 0, 12, 8, 3),
  AP0R0:   systemKey(3, 0, 12, 8, 4),
  AP1R0:   systemKey(3, 0, 12, 9, 0),
  DIR:     systemKey(3, 0, 12, 11, 1),
  RPR:     systemKey(3, 0, 12, 11, 3),
  SGI1R:   systemKey(3, 0, 12, 11, 5),
  ASGI1R:  systemKey(3, 0, 12, 11, 6),
  SGI0R:   systemKey(3, 0, 12, 11, 7),
  IAR1:    systemKey(3, 0, 12, 12, 0),
  EOIR1:   systemKey(3, 0, 12, 12, 1),
  HPPIR1:  systemKey(3, 0, 12, 12, 2),
  BPR1:    systemKey(3, 0, 12, 12, 3),
  CTLR:    systemKey(3, 0, 12, 12, 4),
  SRE:     systemKey(3, 0, 12, 12, 5),
  IGRPEN0: systemKey(3, 0, 12, 12, 6),
  IGRPEN1: systemKey(3, 0, 12, 12, 7),
} as const

/** What KVM's CPU_SYSREGS attributes reach. */
export const ICC_STATE: ReadonlySet<number> = new Set([
  ICC.PMR,
  ICC.BPR0,
  ICC.AP0R0,
  ICC.AP1R0,
  ICC.BPR1,
  ICC.CTLR,
  ICC.SRE,
  ICC.IGRPEN0,
  ICC.IGRPEN1,
])

/** System registers, bypasses disabled: there is no other interface. */
const SRE_FIXED = 7n
const INTID = 0xff_ffff
const low = (value: bigint): number => Number(value & 0xffff_ffffn)

/** The registers of one CPU interface. */
export function iccRegisters(cpu: CpuInterface): ReadonlyMap<number, SystemRegister> {
  const group = (n: number): SystemRegister => ({
    read: () => (cpu.groupEnabled(n) ? 1n : 0n),
    write: v => cpu.enableGroup(n, (v & 1n) === 1n),
  })
  const point = (n: number): SystemRegister => ({
    read: () => BigInt(cpu.binaryPoint(n)),
    write: v => cpu.setBinaryPoint(n, low(v)),
  })
  const active = (n: number): SystemRegister => ({
    read: () => BigInt(cpu.activePriorities(n)),
    write: v => cpu.setActivePriorities(n, low(v)),
  })
  const end = (n: number): SystemRegister => ({
    write: v => cpu.endOfInterrupt(n, low(v) & INTID),
  })
  return new Map<number, SystemRegister>([
    [
      ICC.PMR,
      {
        read: () => BigInt(cpu.priorityMask),
        write: v => {
          cpu.priorityMask = low(v)
        },
      },
    ],
    [ICC.IAR0, { read: () => BigInt(cpu.acknowledge(0)) }],
    [ICC.IAR1, { read: () => BigInt(cpu.acknowledge(1)) }],
    [ICC.EOIR0, end(0)],
    [ICC.EOIR1, end(1)],
    [ICC.HPPIR0, { read: () => BigInt(cpu.highestPending(0)) }],
    [ICC.HPPIR1, { read: () => BigInt(cpu.highestPending(1)) }],
    [ICC.BPR0, point(0)],
    [ICC.BPR1, point(1)],
    [ICC.AP0R0, active(0)],
    [ICC.AP1R0, active(1)],
    [ICC.DIR, { write: v => cpu.deactivate(low(v) & INTID) }],
    [ICC.RPR, { read: () => BigInt(cpu.runningPriority) }],
    [ICC.SGI0R, { write: v => cpu.sendSgi(v, 1) }],
    [ICC.SGI1R, { write: v => cpu.sendSgi(v, 3) }],
    [ICC.ASGI1R, { write: v => cpu.sendSgi(v, 1) }],
    [
      ICC.CTLR,
      {
        read: () => BigInt(cpu.control),
        write: v => {
          cpu.control = low(v)
        },
      },
    ],
    [ICC.SRE, { read: () => SRE_FIXED, write: () => {} }],
    [ICC.IGRPEN0, group(0)],
    [ICC.IGRPEN1, group(1)],
  ])
}

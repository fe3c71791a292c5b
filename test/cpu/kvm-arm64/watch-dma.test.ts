// F-4 on arm64: a watchpoint is the processor's, so DMA to the same memory passes it by, whatever the OS Lock says.
import { expect, it } from 'vitest'
import * as uapi from '../../../src/cpu/kvm/uapi/arm64.js'
import { AT, Guest, I, REG } from './guest.js'

/** DBGWCR: enabled at EL1 and EL0, loads and stores, all bytes. */
const WCR = 0x1fffn
const WATCHPOINT = 0x34
const NOPS = 400

it.each([
  ['unlocked', 8n],
  ['locked', 10n],
])(
  'F-4: with the OS Lock %s it does not fire for DMA, and fires for the processor after it',
  (_, lock) => {
    const g = new Guest()
    g.code([...Array.from({ length: NOPS }, () => I.nop), I.put])
    g.cpu.set(REG.oslsr, lock)
    g.cpu.debug(uapi.KVM_GUESTDBG_USE_HW, {
      arch: { dbg_wvr: [BigInt(AT.DATA)], dbg_wcr: [WCR] },
    })
    // A bus master writes host memory while the guest runs.
    const hpa = g.sys.process.memory.hpaAt(g.vaddr + BigInt(AT.DATA - AT.CODE))
    let written = 0
    g.host.clock.later(() => {
      written = g.host.clock.now
      g.host.memory.write(hpa, Uint8Array.of(1, 2, 3, 4))
    }, 100)
    expect(g.cpu.enter()).toBe(uapi.KVM_EXIT_DEBUG)
    expect(g.cpu.run.u.debug.arch.hsr >>> 26).toBe(WATCHPOINT)
    expect(Number(g.cpu.get(REG.pc))).toBe(AT.CODE + 4 * NOPS)
    expect(written).toBeGreaterThan(0)
    expect(written).toBeLessThan(NOPS)
    expect(g.word(AT.DATA)).toBe(0x0403_0201n)
    expect(g.cpu.get(REG.oslsr)).toBe(lock)
  },
)

// What a hostile arm64 guest can do to its monitor: nothing that is not its own loss.
import { describe, expect, it } from 'vitest'
import { ARM64_MAP, guestBdf } from '../../../src/vmm/arm64/map.js'
import type { Arm64Vmm } from '../../../src/vmm/arm64/vmm.js'
import { tinyElf } from '../../support/elf.js'
import { image, monitor } from './support.js'

const SMALL = { ramBytes: 128 * 2 ** 20 }
const { ECAM, CONSOLE } = ARM64_MAP
const config = (n: number) => ECAM + guestBdf(n) * 4096

describe('a hostile guest', () => {
  it('is told of a PASID capability that VFIO hides, once, at the end of the list', () => {
    const { vmm, end } = monitor(image, SMALL)
    for (const n of [0, 1]) {
      const found: number[] = []
      let at = 0x100
      while (at !== 0) {
        const header = Number(vmm.mmioRead(config(n) + at, 4))
        found.push(header & 0xffff)
        if ((header & 0xffff) === 0x1b) {
          expect(vmm.mmioRead(config(n) + at + 4, 2)).toBe(16n << 8n)
          vmm.mmioWrite(config(n) + at + 6, 2, 0xffffn)
          expect(vmm.mmioRead(config(n) + at + 6, 2)).toBe(7n)
        }
        at = header >>> 20
      }
      expect(found.filter(id => id === 0x1b)).toHaveLength(1)
      expect(found.at(-1)).toBe(0x1b)
    }
    end()
  })

  it('moves a BAR over its own RAM: the BAR is not there, the RAM stays', () => {
    const { vmm, end } = monitor(image, SMALL)
    vmm.mmioWrite(config(0) + 0x04, 2, 0x0406n)
    vmm.mmioWrite(config(0) + 0x10, 4, BigInt(ARM64_MAP.RAM))
    expect(vmm.memory.subarray(0, 8)).toEqual(new TextEncoder().encode('vfio-emu'))
    end()
  })
})

describe('a guest that gives up', () => {
  const words = (...w: number[]) => w.flatMap(v => [0, 8, 16, 24].map(s => (v >>> s) & 0xff))
  const MOV_X1_CONSOLE = 0xd2a1_2001
  // biome-ignore format: table
  it.each([
    ['waits with nothing that could wake it', words(0xd503_207f), { kind: 'stuck' }],
    ['loops for ever',                        words(0x1400_0000), { kind: 'limit' }],
    ['exits with a code',                     words(MOV_X1_CONSOLE, 0x5280_00e2, 0xb900_0822), { kind: 'exit', code: 7 }],
    ['switches itself off by PSCI',           words(0xd2b0_8000, 0xf280_0100, 0xd400_0002), { kind: 'shutdown' }],
  ])('%s: the monitor says so', (_, code, ending) => {
    const { machine, vmm, end } = monitor(arm64Elf(code), SMALL)
    if (ending.kind === 'limit')
      for (let n = 1; n <= 5; n++) machine.clock.later(() => vmm.kick(), n * 1000)
    expect(vmm.run(5)).toEqual(ending)
    end()
  })

  it('writes a line and no newline: it is told at the end', () => {
    const lines: string[] = []
    const { machine, vmm, end } = monitor(image, SMALL)
    machine.trace.listen('guest.console', e => lines.push(e.line))
    say(vmm, 'one\ntwo')
    end()
    expect(lines).toEqual(['one', 'two'])
  })
})

const say = (vmm: Arm64Vmm, text: string) => {
  for (const byte of new TextEncoder().encode(text)) vmm.mmioWrite(CONSOLE, 1, BigInt(byte))
}

/** `tinyElf` for arm64: other machine, RAM from 1 GiB on. */
function arm64Elf(code: number[]): Uint8Array {
  const elf = tinyElf(code)
  const view = new DataView(elf.buffer, elf.byteOffset, elf.length)
  view.setUint16(18, 183, true)
  const header = Number(view.getBigUint64(32, true))
  const base = BigInt(ARM64_MAP.RAM)
  for (const at of [24, header + 16, header + 24])
    view.setBigUint64(at, view.getBigUint64(at, true) + base, true)
  return elf
}

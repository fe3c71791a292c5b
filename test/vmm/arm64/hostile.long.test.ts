// What a hostile arm64 guest can do to its monitor: nothing that is not its own loss. At random, from seeds, through the
// whole monitor and at the virtual SMMUv3 itself; and by design.
import { describe, expect, it } from 'vitest'
import { ARM64_MAP, guestBdf } from '../../../src/vmm/arm64/map.js'
import type { Arm64Vmm } from '../../../src/vmm/arm64/vmm.js'
import { tinyElf } from '../../support/elf.js'
import { isLong, often } from '../../support/long.js'
import { xorshift } from '../../support/random.js'
import { image, monitor } from './support.js'
import { cfgiSte, request, STREAM, STREAMS, world } from './world.js'

const SMALL = { ramBytes: 128 * 2 ** 20 }
const SEEDS = isLong ? [1, 2, 3, 4, 5, 6] : [1]
const { ECAM, SMMU, BARS, BAR_WINDOW, CONSOLE } = ARM64_MAP
const config = (n: number) => ECAM + guestBdf(n) * 4096

describe('a hostile guest', () => {
  it.each(SEEDS)(
    'writes random registers, configuration and BARs: the monitor stands, nothing leaks (seed %i)',
    seed => {
      const { vmm, end } = monitor(image, SMALL)
      const random = xorshift(seed)
      const places = [
        SMMU,
        SMMU + 0x1_0000,
        config(0),
        config(1),
        BARS,
        BARS + BAR_WINDOW,
        ECAM,
        CONSOLE + 0x10,
      ]
      for (let i = 0; i < often(1000, 4000); i++) {
        const size = [1, 2, 4, 8][random(4)]!
        const value = (BigInt(random(2 ** 31)) << 33n) ^ BigInt(random(2 ** 31))
        const at = places[random(places.length)]! + (random(0x1000) & -size)
        if (random(3) === 0) vmm.mmioRead(at, size)
        else vmm.mmioWrite(at, size, BigInt.asUintN(8 * size, value))
        if (random(50) === 0) vmm.poll()
      }
      end()
    },
  )

  it.each(SEEDS)(
    'plays the SMMU, its tables and its queues as it likes: nothing breaks, nothing is kept (seed %i)',
    seed => {
      const w = world()
      const draw = xorshift(seed)
      const dword = () => (BigInt(draw(2 ** 32)) << 32n) | BigInt(draw(2 ** 32))
      w.entry()
      w.enable()
      for (let i = 0; i < often(500, 3000); i++) {
        const kind = draw(8)
        if (kind === 0) w.smmu.write(draw(0x100) * 4, draw(2) ? 8 : 4, dword() & 0xffff_ffffn)
        else if (kind === 1) w.put(STREAMS + STREAM * 64, dword(), dword())
        else if (kind === 2) w.command(cfgiSte(), 1n)
        else if (kind === 3)
          w.command((BigInt(STREAM) << 32n) | (dword() & 0xf_ff00n) | BigInt(draw(0x50)), dword())
        else if (kind === 4) w.smmu.stall(request({ prgIndex: draw(64) }))
        else if (kind === 5) w.smmu.pageRequest(request({ prgIndex: draw(64) }))
        else if (kind === 6) {
          // What a driver does to get going again.
          w.set(0x64, Number(w.smmu.read(0x60, 4)))
          w.entry()
          w.enable()
        } else w.smmu.read(draw(0x8000) * 4, 4)
      }
      w.end()
    },
  )

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

import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { DEFAULT_MACHINE } from '../../src/cli/machine-file.js'
import { createMachine, type Machine } from '../../src/machine.js'
import { GUEST_BDF, GUEST_MAP, Vmm } from '../../src/vmm/vmm.js'
import { tinyElf } from '../support/elf.js'
import { xorshift } from '../support/random.js'

const image = readFileSync(resolve(import.meta.dirname, '../../guests/built/sva-x86_64.elf'))
const AT = '0000:01:00.0'
const RAM = 32 * 2 ** 20

/** A VMM about to run its guest, which the tests play themselves through its MMIO and its memory. */
function monitor(): { machine: Machine; vmm: Vmm; end: () => void } {
  const machine = createMachine(DEFAULT_MACHINE)
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const vmm = new Vmm({
    sys,
    trace: machine.trace,
    ramBytes: RAM,
    image,
    group: machine.groupOf(AT),
    device: AT,
  })
  return {
    machine,
    vmm,
    end() {
      vmm.close()
      sys.exit()
      machine.settle()
      expect(
        Object.values(machine.holdings()).every(n => n === 0),
        JSON.stringify(machine.holdings()),
      ).toBe(true)
    },
  }
}

const IOMMU = GUEST_MAP.IOMMU
const CONFIG = GUEST_MAP.ECAM + GUEST_BDF * 4096
const reg = (vmm: Vmm, offset: number, size: number, value: bigint) =>
  vmm.mmioWrite(IOMMU + offset, size, value)

/** Turns the virtual unit on as a driver does, with tables at the given addresses. */
function enable(vmm: Vmm, root: bigint, queue: bigint): void {
  reg(vmm, 0x90, 8, queue | 0x800n)
  reg(vmm, 0x88, 8, 0n)
  reg(vmm, 0x18, 4, 1n << 26n)
  reg(vmm, 0x20, 8, root | 0x400n)
  reg(vmm, 0x18, 4, (1n << 30n) | (1n << 26n))
  reg(vmm, 0x18, 4, (1n << 31n) | (1n << 26n))
}

describe('a hostile guest', () => {
  it.each([1, 2, 3, 4])(
    'writes random registers, configuration and BARs: the monitor stands, nothing leaks (seed %i)',
    seed => {
      const { vmm, end } = monitor()
      const random = xorshift(seed)
      for (let i = 0; i < 3000; i++) {
        const size = [1, 2, 4, 8][random(4)]!
        const value = (BigInt(random(2 ** 31)) << 33n) ^ BigInt(random(2 ** 31))
        const at =
          [IOMMU, CONFIG, GUEST_MAP.BARS, GUEST_MAP.ECAM][random(4)]! + (random(0x1000) & -size)
        const masked = BigInt.asUintN(8 * size, value)
        if (random(3) === 0) vmm.mmioRead(at, size)
        else vmm.mmioWrite(at, size, masked)
      }
      end()
    },
  )

  it.each([5, 6, 7])(
    'fills tables and queue with random bytes and invalidates everything (seed %i)',
    seed => {
      const { machine, vmm, end } = monitor()
      const random = xorshift(seed)
      const refusals: string[] = []
      machine.trace.listen('vmm.bind', e => void (e.refused && refusals.push(e.refused)))
      const ram = vmm.memory
      for (let i = 0; i < 0x8000; i++) ram[0x10_0000 + i] = random(256)
      // A root that leads to a context entry and a directory of nonsense, with small PDTS so that it ends.
      const view = new DataView(ram.buffer, ram.byteOffset, ram.length)
      view.setBigUint64(0x20_0000, 0x20_1001n, true)
      view.setBigUint64(0x20_1000 + (GUEST_BDF & 127) * 32, 0x10_0000n | 0x1dn, true)
      for (let d = 0; d < 128; d++)
        view.setBigUint64(
          0x10_0000 + 8 * d,
          BigInt(0x10_1000 + random(6) * 0x1000) | BigInt(random(2)),
          true,
        )
      enable(vmm, 0x20_0000n, 0x30_0000n)
      for (let i = 0; i < 64; i++) {
        const type = [1, 2, 6, 7, 8, 9, 5, 3][random(8)]!
        view.setBigUint64(
          0x30_0000 + 32 * i,
          (BigInt(random(2 ** 20)) << 32n) | BigInt(random(0x100) << 4) | BigInt(type),
          true,
        )
        view.setBigUint64(0x30_0000 + 32 * i + 8, BigInt(random(2 ** 31)) << 12n, true)
        reg(vmm, 0x88, 8, BigInt((i + 1) * 32))
        // A refused descriptor stops the queue until software says that it saw the error.
        reg(vmm, 0x34, 4, 0x70n)
      }
      expect(refusals.every(code => ['EINVAL', 'ENOENT', 'EACCES', 'EBUSY'].includes(code))).toBe(
        true,
      )
      end()
    },
  )

  it('binds a PASID that it was never given: the kernel says ENOENT, the guest runs on', () => {
    const { machine, vmm, end } = monitor()
    const bound: object[] = []
    machine.trace.listen('vmm.bind', e => bound.push(e))
    const view = new DataView(vmm.memory.buffer, vmm.memory.byteOffset, vmm.memory.length)
    view.setBigUint64(0x20_0000, 0x20_1001n, true)
    view.setBigUint64(0x20_1000 + (GUEST_BDF & 127) * 32, 0x20_2000n | 0x1dn, true)
    view.setBigUint64(0x20_2000, 0x20_3001n, true)
    view.setBigUint64(0x20_3000 + 64 * 7, 0x41n, true)
    view.setBigUint64(0x20_3000 + 64 * 7 + 16, 0x40_0000n, true)
    enable(vmm, 0x20_0000n, 0x30_0000n)
    view.setBigUint64(0x30_0000, (7n << 32n) | 0x17n, true)
    reg(vmm, 0x88, 8, 32n)
    expect(bound).toEqual([{ operation: 'bind', pasid: 7, root: 0x40_0000, refused: 'ENOENT' }])
    end()
  })

  it('moves a BAR over its own RAM: the BAR is not there, the RAM stays', () => {
    const { vmm, end } = monitor()
    vmm.mmioWrite(CONFIG + 0x04, 2, 0x0406n)
    vmm.mmioWrite(CONFIG + 0x10, 4, 0x10_0000n)
    expect(vmm.run()).toMatchObject({ kind: 'exit' })
    end()
  })
})

describe('a guest that gives up', () => {
  // biome-ignore format: table
  it.each([
    ['halts with interrupts off',       [0xfa, 0xf4],       { kind: 'stuck' }],
    ['executes what is no instruction', [0x0f, 0x0b],       { kind: 'shutdown' }],
    ['loops forever',                   [0xeb, 0xfe],       { kind: 'limit' }],
    ['exits with a code',               [0xb8, 7, 0, 0, 0, 0xe7, 0xf4], { kind: 'exit', code: 7 }],
  ])('%s: the monitor says so', (_, code, end) => {
    const machine = createMachine(DEFAULT_MACHINE)
    const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
    const vmm = new Vmm({ sys, trace: machine.trace, ramBytes: RAM, image: tinyElf(code), group: machine.groupOf(AT), device: AT })
    if (end.kind === 'limit') for (let n = 1; n <= 5; n++) machine.clock.later(() => vmm.kick(), n * 1000)
    expect(vmm.run(5)).toEqual(end)
    vmm.close()
    sys.exit()
    machine.settle()
    expect(Object.values(machine.holdings()).every(n => n === 0)).toBe(true)
  })
})

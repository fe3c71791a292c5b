// The VMM of an encrypted guest against the real kernel interfaces: the launch flow, the hooks on RAM, what debugging
// and the monitor see, reset, and DMA (C.4, C-15, C-20, C-26, F-2).
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { TraceEvents } from '../../../src/base/trace.js'
import { nodeCrypto } from '../../../src/cli/node-crypto.js'
import type { SevEdition } from '../../../src/cpu/kvm/uapi/sev-codes.js'
import { KVM_CREATE_VM } from '../../../src/cpu/kvm/uapi.js'
import { fromHex } from '../../../src/cpu/sev/guest-context.js'
import { packetMac } from '../../../src/cpu/sev/measurement.js'
import { createMachine } from '../../../src/machine.js'
import { dmaCopy } from '../../../src/pci/devices/dma-copy.js'
import { BIOS } from '../../../src/vmm/sev/boot.js'
import { GuestRam, sevHooks } from '../../../src/vmm/sev/guest-ram.js'
import { SevLaunch, SevLaunchError } from '../../../src/vmm/sev/launch.js'
import { parseLaunchConfig } from '../../../src/vmm/sev/launch-config.js'
import { SevVmm } from '../../../src/vmm/sev/machine.js'
import { infoSev, querySev } from '../../../src/vmm/sev/monitor.js'
import { tinyElf } from '../../support/elf.js'
import '../../../src/vmm/sev/trace.js'

const IMAGE = readFileSync(join(import.meta.dirname, '../../../guests/built/sev-x86_64.elf'))
const AT = '0000:01:00.0'
const EDITIONS = ['2016', 'current'] as const
/** Debugging allowed in each edition's words, and forbidden. */
const ALLOW = { '2016': 5, current: 0 } as const
const FORBID = { '2016': 4, current: 1 } as const

const configOf = (policy: number) =>
  parseLaunchConfig(
    `[sev-launch]\nflags = "0"\npolicy = "${policy}"\nnonce = "0102"\nvcpu_count = "1"\nvcpu_length = "8"\nvcpu_mask = "ffffffffffffffff"`,
    'sev.conf',
  )

function host() {
  const machine = createMachine({
    ramBytes: 24 << 20,
    sev: { crypto: nodeCrypto, seed: 'test' },
    devices: [{ at: AT, model: dmaCopy }],
  })
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  return { machine, sys }
}

function start(edition: SevEdition, policy: number, image: Uint8Array = IMAGE) {
  const { machine, sys } = host()
  const steps: TraceEvents['vmm.sev'][] = []
  const looks: TraceEvents['vmm.look'][] = []
  const found: TraceEvents['confidential-dma'][] = []
  machine.trace.listen('vmm.sev', e => steps.push(e))
  machine.trace.listen('vmm.look', e => looks.push(e))
  machine.trace.listen('confidential-dma', e => found.push(e))
  const { trace } = machine
  const config = configOf(policy)
  const vmm = new SevVmm({
    sys,
    trace,
    ramBytes: 6 << 20,
    image,
    group: machine.groupOf(AT),
    device: AT,
    edition,
    config,
  })
  const close = () => {
    vmm.close()
    sys.exit()
    machine.settle()
    return machine.holdings()
  }
  return { machine, sys, vmm, steps, looks, found, close }
}

const HLT = tinyElf([0xf4])

describe.each(EDITIONS)('a guest launched by the %s interface', edition => {
  it('C-26 F-2 shares bounce buffers, and DMA past them reads ciphertext and corrupts: the guest verifies it', () => {
    const { vmm, looks, found, close } = start(edition, ALLOW[edition])
    expect(vmm.run()).toEqual({ kind: 'exit', code: 0 })
    const secret = Array.from(new TextEncoder().encode("the guest's own "), b =>
      b.toString(16).padStart(2, '0'),
    ).join('')
    const [priv, shared] = looks
    expect(priv!.raw).not.toBe(secret)
    expect(priv!.debug).toBe(secret)
    expect(shared!.raw).toBe(secret)
    // Named before a byte moved, with what became of the page.
    expect(found.map(f => [f.access, f.outcome, f.state.kind])).toEqual([
      ['read', 'ciphertext', 'encrypted'],
      ['write', 'ciphertext', 'encrypted'],
    ])
    for (const f of found) expect(f.page.at(-1)?.cause).toMatch(/a vCPU wrote it with the C-bit/)
    expect(Object.values(close()).every(n => n === 0)).toBe(true)
  })

  it('C-20 goes through its steps, and a second start while launching does nothing (C.4 row 07)', () => {
    const { machine, sys } = host()
    const vm = sys.ioctl(sys.open('/dev/kvm'), KVM_CREATE_VM, edition === '2016' ? 0 : 2)
    const launch = new SevLaunch(sys, vm, edition, configOf(ALLOW[edition]))
    launch.init()
    expect(launch.state).toBe(0)
    launch.start()
    launch.start()
    expect([launch.state, launch.status().state, launch.handle]).toEqual([1, 1, 1])
    expect(machine.sev!.firmware.status().guests).toBe(1)
  })

  it('C-15 refuses steps out of order, and stays where it is', () => {
    const { sys } = host()
    const vm = sys.ioctl(sys.open('/dev/kvm'), KVM_CREATE_VM, edition === '2016' ? 0 : 2)
    const launch = new SevLaunch(sys, vm, edition, configOf(ALLOW[edition]))
    launch.init()
    expect(() => launch.update(0n, 16)).toThrow(SevLaunchError)
    expect(() => launch.finish()).toThrow(SevLaunchError)
    expect(launch.state).toBe(0)
  })

  it('C.4 row 09: finish returns a measurement of 32 bytes and the guest is RUNNING', () => {
    const { vmm, steps, close } = start(edition, ALLOW[edition], HLT)
    expect(vmm.launch.measurement!.length).toBe(edition === '2016' ? 32 : 48)
    expect(vmm.launch.status().state).toBe(3)
    expect(steps.map(s => s.step)).toEqual([
      ...(edition === 'current' ? ['init'] : []),
      'start',
      'update', // what the loader leaves
      'update', // the image
      'update', // the BIOS
      'finish',
    ])
    close()
  })

  it('C.4 rows 08, 14, 15, 16: RAM and BIOS are written while launching and encrypted in place, nothing afterwards', () => {
    const { vmm, close } = start(edition, ALLOW[edition], HLT)
    const [ram, bios] = vmm.regions
    expect([ram!.name, bios!.name]).toEqual(['pc.ram', 'pc.bios'])
    const magic = new TextEncoder().encode(BIOS.MAGIC)
    expect(bios!.bytes.subarray(0, 8)).not.toEqual(magic)
    expect(vmm.read(BIOS.ADDRESS, 8, { debug: true })).toEqual(magic)
    expect(ram!.bytes[0x10_0000]).not.toBe(0xf4)
    expect([...vmm.read(0x10_0000, 1, { debug: true })]).toEqual([0xf4])
    const written: string[] = []
    for (const region of vmm.regions) {
      const { hooks } = region
      region.hooks = {
        ...hooks,
        write: (...args) => {
          written.push(region.name)
          hooks.write(...args)
        },
      }
    }
    expect(vmm.run()).toEqual({ kind: 'stuck' })
    expect(written).toEqual([])
    close()
  })

  it('C.4 rows 01 to 04, 10, 11, 19: accesses of the VMM go through hooks, and one marked for debugging sees plaintext', () => {
    const { vmm, close } = start(edition, ALLOW[edition], HLT)
    const ram = vmm.regions[0]!
    expect([...vmm.read(0x10_0000, 4)]).toEqual([...ram.bytes.subarray(0x10_0000, 0x10_0004)])
    ram.write(0x10_0008, Uint8Array.of(1, 2, 3), { debug: true })
    expect([...vmm.read(0x10_0000, 12, { debug: true })]).toEqual([
      0xf4, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 0,
    ])
    ram.write(0x10_0020, Uint8Array.of(9))
    expect([...vmm.read(0x10_0020, 1)]).toEqual([9])
    expect(vmm.read(0x10_0020, 1, { debug: true })[0]).not.toBe(9)
    close()
  })

  it('C.4 rows 10, 11: a policy that forbids debugging gives ciphertext, and drops writes', () => {
    const { vmm, close } = start(edition, FORBID[edition], HLT)
    const ram = vmm.regions[0]!
    const before = ram.bytes.slice(0x10_0000, 0x10_0040)
    expect(vmm.read(0x10_0000, 16, { debug: true })).toEqual(before.subarray(0, 16))
    ram.write(0x10_0000, Uint8Array.of(1, 2, 3), { debug: true })
    expect(ram.bytes.subarray(0x10_0000, 0x10_0040)).toEqual(before)
    close()
  })

  it('C.4 rows 12, 13: the monitor tells state and policy, as text and for programs', () => {
    const { vmm, close } = start(edition, FORBID[edition], HLT)
    const info = vmm.query()
    expect(info).toMatchObject({
      enabled: true,
      interface: edition,
      state: 'running',
      policy: FORBID[edition],
      handle: 1,
    })
    expect(info.measurement).toMatch(/^[0-9a-f]{64}/)
    const rows = new Map(infoSev(info))
    expect([rows.get('SEV'), rows.get('state')]).toEqual(['on', 'running'])
    expect(rows.get('policy')).toMatch(/no debug/)
    close()
    expect([querySev(undefined), infoSev({ enabled: false })]).toEqual([
      { enabled: false },
      [['SEV', 'off']],
    ])
  })

  it('C.4 rows 21, 22: a reset reloads the boot image and measures it again', () => {
    const { vmm, steps, machine, close } = start(edition, ALLOW[edition])
    const first = vmm.launch.measurement!
    expect(vmm.run()).toEqual({ kind: 'exit', code: 0 })
    vmm.reset()
    expect(machine.sev!.firmware.status().guests).toBe(1)
    expect(steps.filter(s => s.step === 'finish').length).toBe(2)
    // With an owner's keys the same image measures the same; today's measurement has a nonce of its own.
    if (edition === '2016') expect(vmm.launch.measurement).toEqual(first)
    else expect(vmm.launch.measurement).not.toEqual(first)
    expect(vmm.run()).toEqual({ kind: 'exit', code: 0 })
    expect(Object.values(close()).every(n => n === 0)).toBe(true)
  })

  it('C.4 row 17: the guest is told of fewer address bits', () => {
    // mov $0x80000008,%eax; cpuid; and $0xff,%eax; out %eax,$0xf4
    const { vmm, close } = start(
      edition,
      ALLOW[edition],
      tinyElf([0xb8, 8, 0, 0, 0x80, 0x0f, 0xa2, 0x0f, 0xb6, 0xc0, 0xe7, 0xf4]),
    )
    expect(vmm.run()).toEqual({ kind: 'exit', code: 47 })
    close()
  })
})

describe('what the pieces refuse', () => {
  it('C-16 a policy beyond this firmware: the launch fails with its code, and nothing is held', () => {
    const { machine, sys } = host()
    const options = {
      sys,
      trace: machine.trace,
      ramBytes: 6 << 20,
      image: HLT,
      group: machine.groupOf(AT),
      device: AT,
    }
    expect(
      () => new SevVmm({ ...options, edition: '2016', config: configOf(0x0002_0005) }),
    ).toThrow(/POLICY_FAILURE/)
    sys.exit()
    machine.settle()
    expect(machine.sev!.firmware.status().guests).toBe(0)
    expect(Object.values(machine.holdings()).every(n => n === 0)).toBe(true)
  })

  it('C-7 absent vCPU numbers: the firmware finds no such count', () => {
    const { machine, sys } = host()
    const config = parseLaunchConfig('[sev-launch]\nflags = "0"\npolicy = "5"', 'sev.conf')
    const options = {
      sys,
      trace: machine.trace,
      ramBytes: 6 << 20,
      image: HLT,
      group: machine.groupOf(AT),
      device: AT,
    }
    expect(() => new SevVmm({ ...options, edition: '2016', config })).toThrow(/INVALID_PARAM/)
  })

  it('an access outside a region is an Error of the VMM', () => {
    const { sys } = host()
    const ram = new GuestRam('pc.ram', 0x1000, sys.mmap(4096))
    expect(() => ram.read(0xfff, new Uint8Array(2))).toThrow(RangeError)
    expect(() => ram.write(0x1fff, new Uint8Array(2))).toThrow(RangeError)
    ram.write(0x1ffe, Uint8Array.of(1, 2))
    expect([...ram.bytes.subarray(4094)]).toEqual([1, 2])
  })

  it('hooks before a launch begins leave bytes as they are', () => {
    const { sys } = host()
    const vm = sys.ioctl(sys.open('/dev/kvm'), KVM_CREATE_VM, 2)
    const launch = new SevLaunch(sys, vm, 'current', configOf(0))
    const ram = new GuestRam('pc.ram', 0, sys.mmap(4096))
    ram.hooks = sevHooks(launch)
    ram.write(0, Uint8Array.of(7), { debug: true })
    const into = new Uint8Array(1)
    ram.read(0, into, { debug: true })
    expect([into[0], ram.bytes[0]]).toEqual([7, 7])
  })

  it('C-19 a secret between measurement and finish: a good packet arrives, a bad one is refused with its code', () => {
    const { machine, sys } = host()
    const vm = sys.ioctl(sys.open('/dev/kvm'), KVM_CREATE_VM, 2)
    const launch = new SevLaunch(sys, vm, 'current', configOf(0))
    launch.init()
    launch.start()
    const memory = sys.mmap(4096)
    launch.update(memory.vaddr, 4096)
    launch.measure()
    const { tek, tik, measure } = machine.sev!.firmware.save().guests[0]!
    const plain = new TextEncoder().encode('thirty-two bytes, for the guest!')
    const iv = new Uint8Array(16).fill(8)
    const data = nodeCrypto.aes128ctr(fromHex(tek), iv, plain)
    const packet = {
      purpose: 1,
      flags: 0,
      iv,
      guestLength: 32,
      data,
      measure: fromHex(measure!),
    } as const
    const header = new Uint8Array(52)
    header.set(iv, 4)
    header.set(packetMac(nodeCrypto, fromHex(tik), packet), 20)
    launch.secret({ header, data }, memory.vaddr + 64n)
    const into = new Uint8Array(32)
    expect(launch.debugRead(memory.vaddr + 64n, into)).toBe(true)
    expect(into).toEqual(plain)
    header[20]! ^= 1
    expect(() => launch.secret({ header, data }, memory.vaddr)).toThrow(/BAD_MEASUREMENT/)
    expect(launch.finish()).toEqual(launch.measurement)
    expect(() => launch.secret({ header, data }, memory.vaddr)).toThrow(SevLaunchError)
  })
})

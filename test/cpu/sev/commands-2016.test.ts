// KVM_SEV_ISSUE_CMD, the interface of 2016: structures, numbers, errno and firmware codes (C-13 to C-16).
import { describe, expect, it } from 'vitest'
import { ErrnoError } from '../../../src/base/errno.js'
import * as old from '../../../src/cpu/kvm/uapi/sev-2016.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { decodePolicy, policyText } from '../../../src/cpu/sev/policy.js'
import { Guest, host } from '../kvm/guest.js'
import { AT, command, command2016, OK, SevGuest, UNTOUCHED } from './guest.js'

const C = old.SEV_2016
const EIO = (code: number) => ({ errno: 'EIO', code })
const refused = (errno: string) => ({ errno, code: UNTOUCHED })
/** Debugging allowed, and the reserved one. */
const DEBUG = 0x05

const start = (init: Parameters<typeof old.kvm_sev_launch_start_2016>[0] = {}) =>
  old.kvm_sev_launch_start_2016({ policy: DEBUG, ...init })
const guest = (options = {}) => new SevGuest(options, { type: 0 })

function started(init?: Parameters<typeof start>[0]) {
  const g = guest()
  const s = start(init)
  g.must(g.command2016(C.LAUNCH_START, s))
  return { g, handle: s.handle }
}

function finish(g: SevGuest, init: Parameters<typeof old.kvm_sev_launch_finish_2016>[0] = {}) {
  const mask = g.sys.mmap(4096)
  mask.bytes.fill(0xff)
  const f = old.kvm_sev_launch_finish_2016({
    vcpu_count: 1,
    vcpu_length: 30,
    vcpu_mask_addr: mask.vaddr,
    vcpu_mask_length: 2,
    ...init,
  })
  const outcome = g.command2016(C.LAUNCH_FINISH, f)
  return { outcome, measurement: f.measurement.slice(), mask }
}

function status(g: SevGuest) {
  const s = old.kvm_sev_guest_status_2016()
  const outcome = g.command2016(C.GUEST_STATUS, s)
  return { ...outcome, policy: s.policy, state: s.state }
}

describe('numbers and structures', () => {
  it('the call is 0xC018AEB8', () => expect(old.KVM_SEV_ISSUE_CMD).toBe(0xc018aeb8))

  // biome-ignore format: table
  it.each([
    ['issue_cmd',     old.kvm_sev_issue_cmd_2016,     24, { cmd: 0, opaque: 8, ret_code: 16 }],
    ['launch_start',  old.kvm_sev_launch_start_2016,  92, { handle: 0, flags: 4, policy: 8, nonce: 12, dh_pub_qx: 28, dh_pub_qy: 60 }],
    ['launch_update', old.kvm_sev_launch_update_2016, 16, { address: 0, length: 8 }],
    ['launch_finish', old.kvm_sev_launch_finish_2016, 56, { vcpu_count: 0, vcpu_length: 4, vcpu_mask_addr: 8, vcpu_mask_length: 16, measurement: 20 }],
    ['guest_status',  old.kvm_sev_guest_status_2016,  8,  { policy: 0, state: 4 }],
    ['dbg',           old.kvm_sev_dbg_2016,           24, { src_addr: 0, dst_addr: 8, length: 16 }],
  ] as const)('C-13 struct %s', (_, type, size, offsets) => {
    expect(type.size).toBe(size)
    expect(type.offsets).toEqual(offsets)
  })

  it('C-13 commands 0 to 12', () => {
    expect(Object.values(C)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
  })
})

describe('refusals', () => {
  it('ENOTTY on a host without SEV', () => {
    const g = new Guest()
    expect(command2016(g.sys, g.vm, C.GUEST_STATUS).errno).toBe('ENOTTY')
  })

  it.each([13, 100, 0xffff_ffff])('C-13 an unknown command, as %i: ENOTTY', cmd => {
    expect(guest().command2016(cmd)).toEqual(refused('ENOTTY'))
  })

  it('C-13 a bad pointer to the call, or in it: EFAULT', () => {
    const g = guest()
    expect(() => g.sys.ioctl(g.vm, old.KVM_SEV_ISSUE_CMD, 0x1000n)).toThrow(ErrnoError)
    expect(g.command2016(C.LAUNCH_START, 0x1000n)).toEqual(refused('EFAULT'))
    g.must(g.command2016(C.LAUNCH_START, start()))
    for (const cmd of [
      C.LAUNCH_UPDATE,
      C.LAUNCH_FINISH,
      C.GUEST_STATUS,
      C.DBG_DECRYPT,
      C.DBG_ENCRYPT,
    ])
      expect(g.command2016(cmd, 0x1000n).errno, `command ${cmd}`).toBe('EFAULT')
  })

  it.each([6, 7, 8, 9, 10, 11, 12])(
    'C-13 command %i has no structure: the firmware refuses it',
    cmd => {
      expect(started().g.command2016(cmd)).toEqual(EIO(0x11))
    },
  )

  it('a guest of the other interface: EINVAL either way', () => {
    expect(new SevGuest().command2016(C.GUEST_STATUS)).toEqual(refused('EINVAL'))
    const { g } = started()
    expect(command(g.sys, g.vm, g.fd, uapi.KVM_SEV_GUEST_STATUS).errno).toBe('ENOTTY')
    expect(command(g.sys, g.vm, g.fd, uapi.KVM_SEV_INIT).errno).toBe('EINVAL')
  })

  it('C-14 the pool runs out: LAUNCH_START fails, and nothing is held', () => {
    const on = host({}, { asids: 1 })
    const one = new SevGuest({}, { host: on, type: 0 })
    const two = new SevGuest({}, { host: on, type: 0 })
    expect(one.command2016(C.LAUNCH_START, start())).toEqual(OK)
    expect(two.command2016(C.LAUNCH_START, start())).toEqual(refused('EBUSY'))
    expect(on.platform!.firmware.status().guests).toBe(1)
  })

  it('C-14 a refused launch gives its ASID back', () => {
    const g = guest()
    expect(g.command2016(C.LAUNCH_START, start({ policy: 0x0200_0000 | (2 << 16) }))).toEqual(
      EIO(7),
    )
    expect(g.firmware.asids.used).toEqual([])
    expect(g.command2016(C.LAUNCH_START, start())).toEqual(OK)
  })

  it('C-14 binding that fails decommissions the guest', () => {
    const g = guest()
    // Another guest of the firmware holds the VM's ASID behind the kernel's back.
    const { firmware } = g
    firmware.init()
    const { handle } = firmware.launchStart({ edition: 'current', policy: 0 })
    firmware.activate(handle!, 1)
    expect(g.command2016(C.LAUNCH_START, start())).toEqual(EIO(0xc))
    expect([firmware.status().guests, firmware.asids.used]).toEqual([1, []])
  })
})

describe('C-15 states', () => {
  it('INVALID, LAUNCHING, RUNNING, as GUEST_STATUS tells', () => {
    const g = guest()
    expect(status(g)).toEqual({ ...OK, code: UNTOUCHED, policy: 0, state: 0 })
    g.must(g.command2016(C.LAUNCH_START, start()))
    expect(status(g)).toEqual({ ...OK, policy: DEBUG, state: 1 })
    expect(finish(g).outcome).toEqual(OK)
    expect(status(g).state).toBe(3)
  })

  const UPDATE = old.kvm_sev_launch_update_2016
  const update = (g: SevGuest) =>
    g.command2016(C.LAUNCH_UPDATE, UPDATE({ address: g.vaddr, length: 16 }))

  it('commands in a wrong state fail with code 2, without a guest with code 0x10, and leave the state alone', () => {
    const fresh = guest()
    expect(update(fresh)).toEqual(EIO(1))
    fresh.firmware.init()
    expect([update(fresh), finish(fresh).outcome, status(fresh).state]).toEqual([
      EIO(0x10),
      EIO(0x10),
      0,
    ])
    const { g } = started()
    expect(g.command2016(C.LAUNCH_START, start())).toEqual(EIO(2))
    expect(status(g).state).toBe(1)
    finish(g)
    expect([update(g), finish(g).outcome, g.command2016(C.LAUNCH_START, start())]).toEqual([
      EIO(2),
      EIO(2),
      EIO(2),
    ])
    expect(status(g).state).toBe(3)
  })

  it('RECEIVING and SENDING are beside them: no command of 2016 leads there here', () => {
    const { g } = started()
    finish(g)
    g.command2016(C.SEND_START)
    expect(status(g).state).toBe(3)
  })
})

describe('a launch', () => {
  it('encrypts in place and measures memory and vCPUs: the same owner, the same measurement', () => {
    const run = (change: (g: SevGuest) => void = () => {}) => {
      const { g } = started({ nonce: [1, 2, 3] })
      change(g)
      const data = old.kvm_sev_launch_update_2016({
        address: g.vaddr + BigInt(AT.DATA),
        length: 4096,
      })
      g.must(g.command2016(C.LAUNCH_UPDATE, data))
      return finish(g).measurement
    }
    const first = run()
    expect(first.some(b => b !== 0)).toBe(true)
    expect(run()).toEqual(first)
    expect(run(g => g.ram.fill(1, AT.DATA, AT.DATA + 1))).not.toEqual(first)
    // The mask covers RAX, and nothing behind it.
    expect(run(g => g.setRegs({ rax: 7n }))).not.toEqual(first)
    expect(run(g => g.setRegs({ rbx: 7n }))).toEqual(first)
  })

  // biome-ignore format: table
  it.each([
    ['a vCPU that is not there',            { vcpu_count: 2 },                                  0x16],
    ['the count that an absent one is',     { vcpu_count: 0xffff_ffff },                        0x16],
    ['a state longer than the firmware takes', { vcpu_length: 0xffff_ffff },                    4],
    ['a mask longer than the state',        { vcpu_length: 1 },                                 4],
    ['a mask longer than anything',         { vcpu_mask_length: 0xffff_ffff },                  4],
  ])('LAUNCH_FINISH with %s: refused, and still LAUNCHING', (_, init, code) => {
    const { g } = started()
    expect(finish(g, init).outcome).toEqual(EIO(code))
    expect(status(g).state).toBe(1)
  })

  it('LAUNCH_FINISH without a mask measures no vCPU state', () => {
    const one = started().g
    const two = started().g
    two.setRegs({ rax: 1n })
    const none = { vcpu_mask_addr: 0n, vcpu_mask_length: 0 }
    expect(finish(one, none).measurement).toEqual(finish(two, none).measurement)
  })

  it.each([
    ['length 0', 0n, 0, refused('EINVAL')],
    ['a length that is no multiple of 16', 0n, 20, EIO(4)],
    ['an address that is none', 4n, 16, EIO(9)],
    ['memory that is not there', 0x1000_0000n, 16, refused('ENOMEM')],
  ] as const)('LAUNCH_UPDATE of %s', (_, at, length, outcome) => {
    const { g } = started()
    const data = old.kvm_sev_launch_update_2016({ address: g.vaddr + at, length })
    expect(g.command2016(C.LAUNCH_UPDATE, data)).toEqual(outcome)
  })

  it('flags bit 0 shares the key of the guest that the handle names', () => {
    const on = host({}, {})
    const policy = 0x07
    const one = new SevGuest({}, { host: on, type: 0 })
    const first = start({ policy })
    one.must(one.command2016(C.LAUNCH_START, first))
    const two = new SevGuest({}, { host: on, type: 0 })
    const { handle } = first
    expect(two.command2016(C.LAUNCH_START, start({ policy: DEBUG, handle, flags: 1 }))).toEqual(
      EIO(7),
    )
    expect(two.command2016(C.LAUNCH_START, start({ policy, handle: 9, flags: 1 }))).toEqual(
      EIO(0x10),
    )
    expect(two.command2016(C.LAUNCH_START, start({ policy, handle, flags: 1 }))).toEqual(OK)
    const [a, b] = on.platform!.firmware.save().guests
    expect(a!.key).toBe(b!.key)
  })

  it('a guest that has run, with vCPUs made before LAUNCH_START, runs encrypted from then on', () => {
    const { g } = started()
    // movl $0x11223344,0x20000; mov 0x20000,%eax; out %eax,$0x10
    g.code('c7 04 25 00 00 02 00 44 33 22 11 8b 04 25 00 00 02 00 e7 10')
    g.encryptTables()
    g.must(
      g.command2016(
        C.LAUNCH_UPDATE,
        old.kvm_sev_launch_update_2016({ address: g.vaddr, length: 0x4_0000 }),
      ),
    )
    finish(g)
    expect(g.answer()).toBe(0x11223344)
    expect(g.view.getUint32(AT.DATA, true)).not.toBe(0x11223344)
  })

  it('debug copies obey the policy: bit 0 allows', () => {
    const { g } = started()
    const to = g.sys.mmap(4096)
    const dbg = (length: number) =>
      old.kvm_sev_dbg_2016({ src_addr: g.vaddr + 3n, dst_addr: to.vaddr + 5n, length })
    expect(g.command2016(C.DBG_DECRYPT, dbg(20))).toEqual(OK)
    expect(g.command2016(C.DBG_ENCRYPT, dbg(20))).toEqual(OK)
    expect(g.command2016(C.DBG_DECRYPT, dbg(0))).toEqual(refused('EINVAL'))
    const closed = started({ policy: 4 }).g
    const from = old.kvm_sev_dbg_2016({
      src_addr: closed.vaddr,
      dst_addr: closed.vaddr,
      length: 16,
    })
    expect(closed.command2016(C.DBG_DECRYPT, from)).toEqual(EIO(7))
    expect(guest().command2016(C.DBG_DECRYPT, from)).toEqual(EIO(0x10))
  })
})

describe('policy words', () => {
  // biome-ignore format: table
  it.each([
    ['2016',    0,           { debug: false, keySharing: false, send: true }],
    ['2016',    1,           { debug: true }],
    ['2016',    2,           { keySharing: true }],
    ['2016',    4,           { encryptedState: false }],
    ['2016',    8,           { send: false }],
    ['2016',    16,          { domainOnly: true }],
    ['2016',    32,          { sevOnly: true }],
    ['2016',    0x0201_0000, { firmwareMajor: 1, firmwareMinor: 2 }],
    ['current', 0,           { debug: true, keySharing: true, send: true }],
    ['current', 1,           { debug: false }],
    ['current', 2,           { keySharing: false }],
    ['current', 4,           { encryptedState: true }],
    ['current', 8,           { send: false }],
    ['current', 16,          { domainOnly: true }],
    ['current', 32,          { sevOnly: true }],
    ['current', 0x0201_0000, { firmwareMajor: 1, firmwareMinor: 2 }],
  ] as const)('C-16 C-17 %s: 0x%x', (edition, word, means) => {
    expect(decodePolicy(word, edition)).toMatchObject(means)
  })

  it('C-17 bit 0 means the opposite in the other word', () => {
    expect([policyText(1, '2016'), policyText(1, 'current')]).toEqual([
      'debug, no key sharing, send',
      'no debug, key sharing, send',
    ])
  })
})

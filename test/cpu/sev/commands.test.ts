// KVM_MEMORY_ENCRYPT_OP: order, errno and firmware code of every command (C-17 to C-20, C-22).
import { describe, expect, it } from 'vitest'
import { ErrnoError } from '../../../src/base/errno.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { wrapSession } from '../../../src/cpu/sev/keys.js'
import { packetMac } from '../../../src/cpu/sev/measurement.js'
import { Guest, host } from '../kvm/guest.js'
import { AT, command, OK, SevGuest, UNTOUCHED } from './guest.js'

const EIO = (code: number) => ({ errno: 'EIO', code })
const refused = (errno: string) => ({ errno, code: UNTOUCHED })
const errnoOf = (call: () => unknown): string => {
  try {
    call()
    return ''
  } catch (error) {
    if (error instanceof ErrnoError) return error.code
    throw error
  }
}
const start = (policy = 0) => uapi.kvm_sev_launch_start({ policy })
const bad = 0x1000n

describe('C-18 the call itself', () => {
  it('is 0xC008AEBA', () => expect(uapi.KVM_MEMORY_ENCRYPT_OP).toBe(0xc008aeba))

  it.each([0, 2, 16, 99, 0xffff_ffff])(
    'ENOTTY without SEV, for command %i and for a null argument',
    id => {
      const g = new Guest()
      expect(command(g.sys, g.vm, 0, id).errno).toBe('ENOTTY')
      expect(errnoOf(() => g.sys.ioctl(g.vm, uapi.KVM_MEMORY_ENCRYPT_OP, 0))).toBe('ENOTTY')
      expect(errnoOf(() => g.sys.open('/dev/sev'))).toBe('ENOENT')
    },
  )

  it('a null argument is a probe: 0', () => {
    const g = new SevGuest({}, { type: 0 })
    expect(g.sys.ioctl(g.vm, uapi.KVM_MEMORY_ENCRYPT_OP, 0)).toBe(0)
  })

  it('a bad pointer: EFAULT', () => {
    const g = new SevGuest()
    expect(errnoOf(() => g.sys.ioctl(g.vm, uapi.KVM_MEMORY_ENCRYPT_OP, bad))).toBe('EFAULT')
  })

  it.each([19, 23, 50, 99, 103, 104, 0xffff_ffff])(
    'an unknown id, as %i: EINVAL, and nothing is copied back',
    id => {
      expect(new SevGuest().command(id)).toEqual(refused('EINVAL'))
    },
  )

  it('the structure is copied back after a refused command too', () => {
    const g = new SevGuest()
    g.must(g.command(uapi.KVM_SEV_LAUNCH_START, start()))
    expect(g.command(uapi.KVM_SEV_LAUNCH_FINISH)).toEqual(EIO(2))
  })

  it('C-19 the old numbers mean other commands: 0 is INIT, not LAUNCH_START', () => {
    const g = new SevGuest({}, { type: 0 })
    expect(uapi.KVM_SEV_INIT).toBe(0)
    const vm = g.sys.ioctl(g.sys.open('/dev/kvm'), uapi.KVM_CREATE_VM, 0)
    expect(command(g.sys, vm, g.fd, 0)).toEqual({ errno: '', code: UNTOUCHED })
  })
})

describe('VM types and INIT', () => {
  it.each([
    [{}, 0b111],
    [{ minPlainAsid: 4 }, 0b1111],
    [{ snp: true, minPlainAsid: 4 }, 0b11111],
  ])('C-19 a host with %o has types %i', (options, bits) => {
    const { sys } = host({}, options)
    const kvm = sys.open('/dev/kvm')
    expect(sys.ioctl(kvm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_VM_TYPES)).toBe(bits)
    for (let type = 2; type <= 5; type++) {
      const errno = errnoOf(() => sys.ioctl(kvm, uapi.KVM_CREATE_VM, type))
      expect(errno, `type ${type}`).toBe(bits & (1 << type) ? '' : 'EINVAL')
    }
  })

  const vm = (type: number, options = {}) => {
    const g = host({}, options)
    const kvm = g.sys.open('/dev/kvm')
    const fd = g.sys.open('/dev/sev')
    const made = g.sys.ioctl(kvm, uapi.KVM_CREATE_VM, type)
    const op = (id: number, data?: Parameters<typeof command>[4]) =>
      command(g.sys, made, fd, id, data)
    return { ...g, op, made, fd }
  }
  const init2 = uapi.kvm_sev_init
  const all = { minPlainAsid: 8, snp: true }

  // biome-ignore format: table
  it.each([
    ['INIT of a default VM',                     0, uapi.KVM_SEV_INIT,    {}, undefined,                        ''],
    ['ES_INIT of a default VM',                  0, uapi.KVM_SEV_ES_INIT, all, undefined,                       ''],
    ['ES_INIT without ES',                       0, uapi.KVM_SEV_ES_INIT, {}, undefined,                        'ENOTTY'],
    ['INIT of a VM of type SEV',                 2, uapi.KVM_SEV_INIT,    {}, undefined,                        'EINVAL'],
    ['ES_INIT of a VM of type SEV-ES',           3, uapi.KVM_SEV_ES_INIT, all, undefined,                       'EINVAL'],
    ['INIT2 of a default VM',                    0, uapi.KVM_SEV_INIT2,   {}, init2(),                          'EINVAL'],
    ['INIT2 of a VM of type SEV',                2, uapi.KVM_SEV_INIT2,   {}, init2(),                          ''],
    ['INIT2 of a VM of type SEV-ES',             3, uapi.KVM_SEV_INIT2,   all, init2(),                         ''],
    ['INIT2 of a VM of type SNP',                4, uapi.KVM_SEV_INIT2,   all, init2(),                         ''],
    ['INIT2 with flags',                         2, uapi.KVM_SEV_INIT2,   {}, init2({ flags: 1 }),              'EINVAL'],
    ['INIT2 with features',                      2, uapi.KVM_SEV_INIT2,   {}, init2({ vmsa_features: 1n }),     'EINVAL'],
    ['INIT2 with a GHCB version, plain SEV',     2, uapi.KVM_SEV_INIT2,   {}, init2({ ghcb_version: 1 }),       'EINVAL'],
    ['INIT2 with GHCB version 2, ES',            3, uapi.KVM_SEV_INIT2,   all, init2({ ghcb_version: 2 }),      ''],
    ['INIT2 with GHCB version 3, ES',            3, uapi.KVM_SEV_INIT2,   all, init2({ ghcb_version: 3 }),      'EINVAL'],
    ['INIT2 with GHCB version 1, SNP',           4, uapi.KVM_SEV_INIT2,   all, init2({ ghcb_version: 1 }),      'EINVAL'],
    ['INIT2 with a bad pointer',                 2, uapi.KVM_SEV_INIT2,   {}, bad,                              'EFAULT'],
  ] as const)('C-19 %s: "%s"', (_, type, id, options, data, errno) => {
    expect(vm(type, options).op(id, data).errno).toBe(errno)
  })

  it('C-19 a second INIT, and any INIT after a vCPU exists: EINVAL', () => {
    const twice = vm(2)
    expect(twice.op(uapi.KVM_SEV_INIT2, init2()).errno).toBe('')
    expect(twice.op(uapi.KVM_SEV_INIT2, init2()).errno).toBe('EINVAL')
    const old = vm(0)
    expect([old.op(0).errno, old.op(0).errno]).toEqual(['', 'EINVAL'])
    for (const type of [0, 2]) {
      const late = vm(type)
      late.sys.ioctl(late.made, uapi.KVM_CREATE_VCPU, 0)
      const id = type === 0 ? uapi.KVM_SEV_INIT : uapi.KVM_SEV_INIT2
      expect(late.op(id, init2()).errno).toBe('EINVAL')
    }
  })

  it('C-19 an SNP VM, once initialised: every id below 100 is EPERM, even one that nobody knows', () => {
    const snp = vm(4, all)
    expect(snp.op(uapi.KVM_SEV_GUEST_STATUS).errno).toBe('ENOTTY')
    snp.op(uapi.KVM_SEV_INIT2, init2())
    for (const id of [0, 2, 16, 22, 50, 99]) expect(snp.op(id).errno).toBe('EPERM')
    expect(snp.op(uapi.KVM_SEV_SNP_LAUNCH_START)).toEqual(EIO(0x11))
  })

  it('SNP commands of other VMs: ENOTTY', () => {
    expect(vm(2).op(uapi.KVM_SEV_SNP_LAUNCH_START).errno).toBe('ENOTTY')
  })

  it('C-14 the pool runs out: EBUSY; a closed VM gives its ASID back', () => {
    const { sys, platform } = host({}, { asids: 2 })
    const kvm = sys.open('/dev/kvm')
    const init = () => {
      const made = sys.ioctl(kvm, uapi.KVM_CREATE_VM, 2)
      return { made, ...command(sys, made, 0, uapi.KVM_SEV_INIT2, init2()) }
    }
    const [one, two] = [init(), init()]
    expect([one.errno, two.errno, init().errno]).toEqual(['', '', 'EBUSY'])
    expect(platform!.firmware.asids.used).toEqual([1, 2])
    sys.close(one.made)
    expect(platform!.firmware.asids.used).toEqual([2])
    expect(init().errno).toBe('')
  })

  it('C-14 guests with encrypted state draw from the ASIDs below the plain ones', () => {
    const on = host({}, { asids: 4, minPlainAsid: 3 })
    const kvm = on.sys.open('/dev/kvm')
    const init = (type: number) => {
      const made = on.sys.ioctl(kvm, uapi.KVM_CREATE_VM, type)
      return command(on.sys, made, 0, uapi.KVM_SEV_INIT2, init2()).errno
    }
    expect([init(2), init(3), init(2), init(2)]).toEqual(['', '', '', 'EBUSY'])
    expect(on.platform!.firmware.asids.used).toEqual([1, 3, 4])
  })
})

describe('C-19 C-20 a launch', () => {
  it('from uninitialised (0) by LAUNCHING (1) and SECRET (2) to RUNNING (3)', () => {
    const g = new SevGuest()
    expect(g.firmware.status().guests).toBe(0)
    const s = start(1)
    expect(g.command(uapi.KVM_SEV_LAUNCH_START, s)).toEqual(OK)
    expect(s.handle).toBe(1)
    expect(g.status()).toEqual({ ...OK, handle: 1, policy: 1, state: 1 })
    g.update(0, 4096)
    expect(g.status().state).toBe(1)
    g.measure()
    expect(g.status().state).toBe(2)
    expect(g.command(uapi.KVM_SEV_LAUNCH_FINISH)).toEqual(OK)
    expect(g.status().state).toBe(3)
  })

  it('C-20 migration adds SENDING (4) and RECEIVING (5)', () => {
    const { from, to } = migrating()
    expect([from.status().state, to.status().state]).toEqual([4, 5])
  })

  const DATA = uapi.kvm_sev_launch_update_data
  // biome-ignore format: table
  const IN_STATE = [
    // command                               data                 fresh  LAUNCHING  SECRET  RUNNING (0: succeeds)
    ['LAUNCH_START',  uapi.KVM_SEV_LAUNCH_START,  start(),            0,     0x0c,      0x0c,   0x0c],
    ['LAUNCH_FINISH', uapi.KVM_SEV_LAUNCH_FINISH, undefined,          'EBADF', 2,       0,      2   ],
    ['GUEST_STATUS',  uapi.KVM_SEV_GUEST_STATUS,  uapi.kvm_sev_guest_status(), 'EBADF', 0, 0,   0   ],
    ['SEND_FINISH',   uapi.KVM_SEV_SEND_FINISH,   undefined,          'EBADF', 2,       2,      2   ],
    ['SEND_CANCEL',   uapi.KVM_SEV_SEND_CANCEL,   undefined,          'EBADF', 2,       2,      2   ],
    ['RECEIVE_FINISH',uapi.KVM_SEV_RECEIVE_FINISH,undefined,          'EBADF', 2,       2,      2   ],
  ] as const
  it.each(IN_STATE)(
    'C-15 %s in each state, which stays where the command fails',
    (_, id, data, ...answers) => {
      answers.forEach((answer, state) => {
        const g = new SevGuest()
        if (state >= 1) g.must(g.command(uapi.KVM_SEV_LAUNCH_START, start()))
        if (state >= 2) g.measure()
        if (state >= 3) g.must(g.command(uapi.KVM_SEV_LAUNCH_FINISH))
        const outcome = g.command(id, data)
        const expected =
          answer === 0 ? OK : typeof answer === 'string' ? refused(answer) : EIO(answer)
        expect(outcome, `state ${state}`).toEqual(expected)
        if (state > 0 && answer !== 0) expect(g.status().state).toBe(state)
      })
    },
  )

  it('C-15 LAUNCH_UPDATE_DATA and LAUNCH_MEASURE only while LAUNCHING', () => {
    const g = new SevGuest()
    const update = () =>
      g.command(uapi.KVM_SEV_LAUNCH_UPDATE_DATA, DATA({ uaddr: g.vaddr, len: 16 }))
    const measure = () => g.command(uapi.KVM_SEV_LAUNCH_MEASURE, uapi.kvm_sev_launch_measure())
    expect([update(), measure()]).toEqual([refused('EBADF'), refused('EBADF')])
    g.launch()
    expect([update(), measure()]).toEqual([EIO(2), EIO(2)])
  })

  it('commands of a VM that is no SEV guest: ENOTTY', () => {
    const g = new SevGuest({}, { type: 0 })
    for (const id of [2, 3, 5, 6, 7, 8, 9, 11, 12, 15, 16, 17, 18, 20, 21])
      expect(g.command(id, start()), `command ${id}`).toEqual(refused('ENOTTY'))
    expect(g.command(uapi.KVM_SEV_LAUNCH_UPDATE_VMSA)).toEqual(refused('ENOTTY'))
    expect(g.command(uapi.KVM_SEV_RECEIVE_UPDATE_DATA, start())).toEqual(refused('EINVAL'))
  })

  it.each([2, 3, 5, 6, 8, 9, 12, 13, 17, 18, 20])('command %i with a bad pointer: EFAULT', id => {
    expect(new SevGuest().command(id, bad)).toEqual(refused('EFAULT'))
  })

  it('a descriptor that is not /dev/sev, or no longer: EBADF', () => {
    const g = new SevGuest()
    expect(g.command(uapi.KVM_SEV_LAUNCH_START, start(), 99)).toEqual(refused('EBADF'))
    expect(g.command(uapi.KVM_SEV_LAUNCH_START, start(), g.vm)).toEqual(refused('EBADF'))
    g.must(g.command(uapi.KVM_SEV_LAUNCH_START, start()))
    g.sys.close(g.fd)
    expect(g.status().errno).toBe('EBADF')
  })

  // biome-ignore format: table
  it.each([
    ['length 0',                          0x1000n, 0,      'EINVAL', UNTOUCHED],
    ['an address that wraps',             -4096n,  8192,   'EINVAL', UNTOUCHED],
    ['a page that is not mapped',         -1n,     16,     'ENOMEM', UNTOUCHED],
    ['a length that is no multiple of 16',0x1000n, 8,      'EIO',    4],
    ['an address that is none',           0x1008n, 16,     'EIO',    9],
    ['several pages',                     0x1000n, 0x3000, '',       0],
    ['the end of one and the start of another', 0x1ff0n, 32, '',     0],
  ] as const)('C-19 C-22 LAUNCH_UPDATE_DATA of %s', (_, at, len, errno, code) => {
    const g = new SevGuest()
    g.must(g.command(uapi.KVM_SEV_LAUNCH_START, start()))
    const uaddr = at === -1n ? 0x1000_0000n : at < 0n ? BigInt.asUintN(64, at) : g.vaddr + at
    const outcome = g.command(uapi.KVM_SEV_LAUNCH_UPDATE_DATA, DATA({ uaddr, len }))
    expect(outcome).toEqual({ errno, code })
  })

  it('C-19 memory locked beyond the limit: ENOMEM', () => {
    const on = host({}, {})
    const g = new SevGuest({}, { host: on })
    g.must(g.command(uapi.KVM_SEV_LAUNCH_START, start()))
    const { vaddr } = g.sys.mmap(0x80_1000)
    const update = (len: number) =>
      g.command(uapi.KVM_SEV_LAUNCH_UPDATE_DATA, DATA({ uaddr: vaddr, len }))
    expect(update(0x80_1000)).toEqual(refused('ENOMEM'))
    expect(on.frames.pins).toBe(0)
  })

  const MEASURE = uapi.kvm_sev_launch_measure
  it('C-19 LAUNCH_MEASURE: length 0 asks, and the size is written back', () => {
    const g = new SevGuest()
    g.must(g.command(uapi.KVM_SEV_LAUNCH_START, start()))
    const ask = MEASURE()
    expect(g.command(uapi.KVM_SEV_LAUNCH_MEASURE, ask)).toEqual(EIO(4))
    expect(ask.len).toBe(48)
    expect(g.status().state).toBe(1)
  })

  // biome-ignore format: table
  it.each([
    ['too small',             true,  47,     EIO(4),            47],
    ['over the limit',        true,  0x4001, refused('EINVAL'), 0x4001],
    ['at the limit',          true,  0x4000, OK,                48],
    ['without a buffer',      false, 48,     EIO(4),            48],
    ['without one and large', false, 0x4001, EIO(4),            0x4001],
  ] as const)('C-19 LAUNCH_MEASURE with a size %s', (_, buffer, len, outcome, left) => {
    const g = new SevGuest()
    g.must(g.command(uapi.KVM_SEV_LAUNCH_START, start()))
    const room = g.sys.mmap(0x5000)
    const ask = MEASURE({ uaddr: buffer ? room.vaddr : 0n, len })
    expect(g.command(uapi.KVM_SEV_LAUNCH_MEASURE, ask)).toEqual(outcome)
    expect(ask.len).toBe(left)
  })

  it('C-17 C-22 policies that the firmware cannot honour: code 7', () => {
    const policies = [0x0002_0000, 0x3401_0000, 1 << 2]
    for (const policy of policies) {
      expect(new SevGuest().command(uapi.KVM_SEV_LAUNCH_START, start(policy)), `${policy}`).toEqual(
        EIO(7),
      )
    }
    expect(new SevGuest().command(uapi.KVM_SEV_LAUNCH_START, start(0x3301_0000))).toEqual(OK)
  })

  it('C-14 an ASID that cannot be bound: the guest is decommissioned again', () => {
    const g = new SevGuest()
    expect(g.command(uapi.KVM_SEV_LAUNCH_START, start(1 << 2))).toEqual(EIO(7))
    expect(g.firmware.status().guests).toBe(0)
    expect(g.command(uapi.KVM_SEV_LAUNCH_START, start())).toEqual(OK)
    expect(g.command(uapi.KVM_SEV_LAUNCH_START, start())).toEqual(EIO(0xc))
    expect(g.firmware.status().guests).toBe(1)
  })

  it('a handle that cannot be told: EFAULT, and no guest is left', () => {
    const g = new SevGuest()
    const page = g.sys.mmap(4096)
    page.bytes.set(start().bytes)
    g.sys.process.memory.mprotect(page.vaddr, 4096, 1)
    expect(g.command(uapi.KVM_SEV_LAUNCH_START, page.vaddr).errno).toBe('EFAULT')
    expect(g.firmware.status().guests).toBe(0)
  })

  it('a shared key: two guests of one key encrypt alike; without leave of both policies code 7', () => {
    const on = host({}, {})
    const one = new SevGuest({}, { host: on })
    one.launch()
    const other = (handle: number, policy: number) => {
      const g = new SevGuest({}, { host: on })
      const s = uapi.kvm_sev_launch_start({ handle, policy })
      return { g, outcome: g.command(uapi.KVM_SEV_LAUNCH_START, s) }
    }
    expect(other(one.handle, 2).outcome).toEqual(EIO(7))
    expect(other(77, 0).outcome).toEqual(EIO(0x10))
    const { g, outcome } = other(one.handle, 0)
    expect(outcome).toEqual(OK)
    const [a, b] = g.firmware.save().guests
    expect(a!.key).toBe(b!.key)
  })
})

describe('owners and secrets', () => {
  const OWNER = new TextEncoder().encode("the owner's public key")
  const TEK = Uint8Array.from({ length: 16 }, (_, i) => i)
  const TIK = Uint8Array.from({ length: 16 }, (_, i) => 100 + i)

  function owned(policy = 0) {
    const g = new SevGuest()
    const { crypto } = g.firmware
    const nonce = new Uint8Array(16).fill(9)
    const keys = { tek: TEK, tik: TIK }
    const session = wrapSession(crypto, g.firmware.agree(OWNER), keys, policy, nonce, nonce)
    const place = g.sys.mmap(8192)
    place.bytes.set(OWNER)
    place.bytes.set(session, 4096)
    const given = uapi.kvm_sev_launch_start({
      policy,
      dh_uaddr: place.vaddr,
      dh_len: OWNER.length,
      session_uaddr: place.vaddr + 4096n,
      session_len: session.length,
    })
    return { g, place, given, crypto }
  }

  it("a launch with the owner's session: the owner can check the measurement", () => {
    const { g, given } = owned()
    expect(g.command(uapi.KVM_SEV_LAUNCH_START, given)).toEqual(OK)
  })

  // biome-ignore format: table
  it.each([
    ['a session that was tampered with',  (s: ReturnType<typeof owned>) => { s.place.bytes[4096 + 20]! ^= 1 }, EIO(0xb)],
    ['a policy that the owner did not mean', (s: ReturnType<typeof owned>) => { s.given.policy = 1 },          EIO(0xb)],
    ['a key without a session',           (s: ReturnType<typeof owned>) => { s.given.session_uaddr = 0n },     EIO(0x16)],
    ['a session without a key',           (s: ReturnType<typeof owned>) => { s.given.dh_uaddr = 0n },          EIO(0x16)],
    ['a session cut short',               (s: ReturnType<typeof owned>) => { s.given.session_len = 127 },      EIO(4)],
    ['a key of no length',                (s: ReturnType<typeof owned>) => { s.given.dh_len = 0 },             refused('EINVAL')],
    ['a key longer than a blob may be',   (s: ReturnType<typeof owned>) => { s.given.dh_len = 0x4001 },        refused('EINVAL')],
    ['a key that is not there',           (s: ReturnType<typeof owned>) => { s.given.dh_uaddr = bad },         refused('EFAULT')],
  ] as const)('C-22 %s', (_, change, outcome) => {
    const s = owned()
    change(s)
    expect(s.g.command(uapi.KVM_SEV_LAUNCH_START, s.given)).toEqual(outcome)
    expect(s.g.firmware.status().guests).toBe(0)
  })

  function withSecret() {
    const { g, given, crypto } = owned()
    g.must(g.command(uapi.KVM_SEV_LAUNCH_START, given))
    g.update(0, 4096)
    const measure = g.measure().subarray(0, 32)
    const plain = new TextEncoder().encode('sixteen bytes of secret, twice!!')
    const iv = new Uint8Array(16).fill(3)
    const data = crypto.aes128ctr(TEK, iv, plain)
    const header = new Uint8Array(52)
    header.set(iv, 4)
    header.set(
      packetMac(crypto, TIK, { purpose: 1, flags: 0, iv, guestLength: 32, data, measure }),
      20,
    )
    const place = g.sys.mmap(8192)
    place.bytes.set(header)
    place.bytes.set(data, 4096)
    const secret = uapi.kvm_sev_launch_secret({
      hdr_uaddr: place.vaddr,
      hdr_len: header.length,
      guest_uaddr: g.vaddr + BigInt(AT.DATA),
      guest_len: 32,
      trans_uaddr: place.vaddr + 4096n,
      trans_len: 32,
    })
    return { g, place, secret, plain }
  }

  it('LAUNCH_SECRET puts the plaintext into encrypted memory', () => {
    const { g, secret, plain } = withSecret()
    expect(g.command(uapi.KVM_SEV_LAUNCH_SECRET, secret)).toEqual(OK)
    expect(g.status().state).toBe(2)
    expect([...g.peek(AT.DATA, 32)]).toEqual([...plain])
    expect([...g.ram.subarray(AT.DATA, AT.DATA + 32)]).not.toEqual([...plain])
  })

  // biome-ignore format: table
  it.each([
    ['a packet that was tampered with', (s: ReturnType<typeof withSecret>) => { s.place.bytes[4096]! ^= 1 },        EIO(0xb)],
    ['a header cut short',              (s: ReturnType<typeof withSecret>) => { s.secret.hdr_len = 51 },            EIO(4)],
    ['lengths that differ',             (s: ReturnType<typeof withSecret>) => { s.secret.trans_len = 16 },          EIO(4)],
    ['a length that is no multiple of 16', (s: ReturnType<typeof withSecret>) => { s.secret.guest_len = 24 },       EIO(4)],
    ['an address that is none',         (s: ReturnType<typeof withSecret>) => { s.secret.guest_uaddr += 8n },       EIO(9)],
    ['nothing',                         (s: ReturnType<typeof withSecret>) => { s.secret.guest_len = 0 },           refused('EINVAL')],
    ['a packet that is not there',      (s: ReturnType<typeof withSecret>) => { s.secret.trans_uaddr = bad },       refused('EFAULT')],
    ['a header of no address',          (s: ReturnType<typeof withSecret>) => { s.secret.hdr_uaddr = 0n },          refused('EINVAL')],
    ['memory that is not there',        (s: ReturnType<typeof withSecret>) => { s.secret.guest_uaddr = 0x1000_0000n }, refused('ENOMEM')],
  ] as const)('C-22 LAUNCH_SECRET of %s, which changes no memory', (_, change, outcome) => {
    const s = withSecret()
    change(s)
    const before = s.g.ram.slice(AT.DATA, AT.DATA + 64)
    expect(s.g.command(uapi.KVM_SEV_LAUNCH_SECRET, s.secret)).toEqual(outcome)
    expect(s.g.ram.subarray(AT.DATA, AT.DATA + 64)).toEqual(before)
  })

  it('C-15 LAUNCH_SECRET before the measurement, or after the end: code 2', () => {
    const { g, secret } = withSecret()
    g.must(g.command(uapi.KVM_SEV_LAUNCH_FINISH))
    expect(g.command(uapi.KVM_SEV_LAUNCH_SECRET, secret)).toEqual(EIO(2))
  })

  it('a secret needs contiguous memory: EINVAL', () => {
    const { g, secret } = withSecret()
    const two = g.sys.mmap(4096)
    g.sys.mmap(4096)
    g.sys.process.memory.mmap(4096, { at: two.vaddr + 4096n })
    secret.guest_uaddr = two.vaddr + 4080n
    expect(g.command(uapi.KVM_SEV_LAUNCH_SECRET, secret)).toEqual(refused('EINVAL'))
  })
})

/** A guest on its way from one VM to another. */
function migrating(policy = 0) {
  const on = host({}, {})
  const from = new SevGuest({}, { host: on })
  from.ram.set(new TextEncoder().encode('what is to arrive'), AT.DATA)
  from.launch(policy)
  const place = on.sys.mmap(0x4000)
  const session = uapi.kvm_sev_send_start({
    pdh_cert_uaddr: place.vaddr,
    pdh_cert_len: 8,
    plat_certs_uaddr: place.vaddr,
    plat_certs_len: 8,
    amd_certs_uaddr: place.vaddr,
    amd_certs_len: 8,
    session_uaddr: place.vaddr + 0x1000n,
    session_len: 128,
  })
  const sent = from.command(uapi.KVM_SEV_SEND_START, session)
  const to = new SevGuest({}, { host: on })
  const start = uapi.kvm_sev_receive_start({
    policy,
    pdh_uaddr: place.vaddr,
    pdh_len: 8,
    session_uaddr: place.vaddr + 0x1000n,
    session_len: 128,
  })
  const received = sent.errno ? sent : to.command(uapi.KVM_SEV_RECEIVE_START, start)
  const packet = uapi.kvm_sev_send_update_data({
    hdr_uaddr: place.vaddr + 0x2000n,
    hdr_len: 52,
    guest_uaddr: from.vaddr + BigInt(AT.DATA),
    guest_len: 4096,
    trans_uaddr: place.vaddr + 0x3000n,
    trans_len: 4096,
  })
  return { on, from, to, sent, received, session, start, packet, place }
}

describe('sending and receiving', () => {
  it('a page travels encrypted and arrives under another key', () => {
    const { from, to, sent, received, packet, place } = migrating()
    expect([sent, received]).toEqual([OK, OK])
    expect(from.command(uapi.KVM_SEV_SEND_UPDATE_DATA, packet)).toEqual(OK)
    expect(new TextDecoder().decode(place.bytes.subarray(0x3000, 0x3011))).not.toBe(
      'what is to arrive',
    )
    packet.guest_uaddr = to.vaddr + BigInt(AT.DATA)
    expect(to.command(uapi.KVM_SEV_RECEIVE_UPDATE_DATA, packet)).toEqual(OK)
    expect(from.command(uapi.KVM_SEV_SEND_FINISH)).toEqual(OK)
    expect(to.command(uapi.KVM_SEV_RECEIVE_FINISH)).toEqual(OK)
    expect([from.status().state, to.status().state]).toEqual([6, 3])
    expect(new TextDecoder().decode(to.peek(AT.DATA, 17))).toBe('what is to arrive')
    expect(to.ram.subarray(AT.DATA, AT.DATA + 16)).not.toEqual(
      from.ram.subarray(AT.DATA, AT.DATA + 16),
    )
  })

  it('C-16 C-17 a guest that must not leave: code 7', () => {
    expect(migrating(1 << 3).sent).toEqual(EIO(7))
  })

  it('SEND_CANCEL: it runs here again', () => {
    const { from } = migrating()
    expect(from.command(uapi.KVM_SEV_SEND_CANCEL)).toEqual(OK)
    expect(from.status().state).toBe(3)
  })

  it('length 0 asks for the size of a session, of a header and of a packet', () => {
    const { from, session, packet } = migrating()
    session.session_len = 0
    expect(from.command(uapi.KVM_SEV_SEND_START, session)).toEqual(EIO(4))
    expect(session.session_len).toBe(128)
    packet.trans_len = 0
    expect(from.command(uapi.KVM_SEV_SEND_UPDATE_DATA, packet)).toEqual(EIO(4))
    expect([packet.hdr_len, packet.trans_len]).toEqual([52, 4096])
  })

  // biome-ignore format: table
  it.each([
    ['SEND_START without a key',          (m: ReturnType<typeof migrating>) => { m.session.pdh_cert_uaddr = 0n; return m.from.command(8, m.session) },    refused('EINVAL')],
    ['SEND_START over the limit',         (m: ReturnType<typeof migrating>) => { m.session.session_len = 0x4001; return m.from.command(8, m.session) },   refused('EINVAL')],
    ['SEND_START with too little room',   (m: ReturnType<typeof migrating>) => { m.session.session_len = 127; return m.from.command(8, m.session) },      EIO(4)],
    ['a second SEND_START',               (m: ReturnType<typeof migrating>) => m.from.command(8, m.session),                                              EIO(2)],
    ['a packet over a page boundary',     (m: ReturnType<typeof migrating>) => { m.packet.guest_uaddr += 16n; return m.from.command(9, m.packet) },        refused('EINVAL')],
    ['a packet of no memory',             (m: ReturnType<typeof migrating>) => { m.packet.guest_len = 0; return m.from.command(9, m.packet) },            refused('EINVAL')],
    ['a packet with too little room',     (m: ReturnType<typeof migrating>) => { m.packet.trans_len = 4080; return m.from.command(9, m.packet) },         EIO(4)],
    ['a second RECEIVE_START',            (m: ReturnType<typeof migrating>) => m.to.command(12, m.start),                                                 EIO(0xc)],
    ['RECEIVE_START without a session',   (m: ReturnType<typeof migrating>) => { m.start.session_len = 0; return m.to.command(12, m.start) },             refused('EINVAL')],
    ['a packet that nobody sent',         (m: ReturnType<typeof migrating>) => { m.packet.guest_uaddr = m.to.vaddr; return m.to.command(13, m.packet) },   EIO(0xb)],
    ['an empty packet received',          (m: ReturnType<typeof migrating>) => { m.packet.hdr_len = 0; return m.to.command(13, m.packet) },               refused('EINVAL')],
    ['a packet of one page and a bit',    (m: ReturnType<typeof migrating>) => { m.packet.guest_len = 4112; return m.to.command(13, m.packet) },          refused('EINVAL')],
  ] as const)('%s', (_, act, outcome) => {
    expect(act(migrating())).toEqual(outcome)
  })

  it('register state of ES guests is not sent or received: EINVAL', () => {
    const { from } = migrating()
    for (const id of [uapi.KVM_SEV_SEND_UPDATE_VMSA, uapi.KVM_SEV_RECEIVE_UPDATE_VMSA])
      expect(from.command(id, start())).toEqual(refused('EINVAL'))
  })
})

describe('what is around a guest', () => {
  it('KVM_RUN of a VM without INIT2, or of one with encrypted state: EINVAL; without a launch it cannot be entered', () => {
    expect(new SevGuest({}, { init: false }).enter()).toBe('EINVAL')
    expect(new SevGuest({ minPlainAsid: 4 }, { type: 3 }).enter()).toBe('EINVAL')
    expect(new SevGuest().enter()).toBe(uapi.KVM_EXIT_FAIL_ENTRY)
  })

  it('ES: LAUNCH_UPDATE_VMSA is not a command of this firmware', () => {
    const g = new SevGuest({ minPlainAsid: 4 }, { type: 3 })
    expect(g.command(uapi.KVM_SEV_LAUNCH_START, start(1 << 2))).toEqual(OK)
    expect(g.command(uapi.KVM_SEV_LAUNCH_UPDATE_VMSA)).toEqual(EIO(0x11))
  })

  it('regions are pinned until they are unregistered, or the VM is gone', () => {
    const g = new SevGuest()
    const region = uapi.kvm_enc_region({ addr: g.vaddr, size: 0x3000n })
    const call = (cmd: number, r = region) => errnoOf(() => g.sys.ioctl(g.vm, cmd, r))
    expect(call(uapi.KVM_MEMORY_ENCRYPT_REG_REGION)).toBe('')
    expect(g.host.frames.pins).toBe(3)
    const other = uapi.kvm_enc_region({ addr: g.vaddr, size: 0x2000n })
    expect(call(uapi.KVM_MEMORY_ENCRYPT_UNREG_REGION, other)).toBe('EINVAL')
    expect(call(uapi.KVM_MEMORY_ENCRYPT_UNREG_REGION)).toBe('')
    expect(g.host.frames.pins).toBe(0)
    call(uapi.KVM_MEMORY_ENCRYPT_REG_REGION)
    g.sys.exit()
    expect(g.host.frames.pins).toBe(0)
  })

  it.each([
    ['a VM that is no SEV guest', 0, 0n, 0x1000n, 'ENOTTY'],
    ['no bytes', 2, 0n, 0n, 'EINVAL'],
    ['memory that is not there', 2, 0x1000_0000n, 0x1000n, 'ENOMEM'],
  ] as const)('a region of %s', (_, type, at, size, errno) => {
    const g = new SevGuest({}, { type })
    const region = uapi.kvm_enc_region({ addr: at === 0n ? g.vaddr : at, size })
    expect(errnoOf(() => g.sys.ioctl(g.vm, uapi.KVM_MEMORY_ENCRYPT_REG_REGION, region))).toBe(errno)
  })

  it('a VM that goes takes guest, key and ASID with it', () => {
    const g = new SevGuest()
    g.launch()
    expect([g.firmware.status().guests, g.firmware.asids.used]).toEqual([1, [1]])
    g.sys.exit()
    expect([g.firmware.status().guests, g.firmware.asids.used]).toEqual([0, []])
    expect(g.firmware.pages.count).toBe(0)
  })

  it('C-14 C-18 two VMs launch step by step beside each other, each with its own ASID, key and state', () => {
    const on = host({}, {})
    const guests = [new SevGuest({}, { host: on }), new SevGuest({}, { host: on })]
    for (const g of guests) g.must(g.command(uapi.KVM_SEV_LAUNCH_START, start()))
    guests[0]!.update(AT.DATA, 16)
    guests[0]!.measure()
    expect(guests.map(g => g.status().state)).toEqual([2, 1])
    guests[1]!.update(AT.DATA, 16)
    const [a, b] = guests.map(g => [...g.ram.subarray(AT.DATA, AT.DATA + 16)])
    expect(a).not.toEqual(b)
    expect(guests.map(g => g.status().handle)).toEqual([1, 2])
  })

  it('/dev/sev answers PLATFORM_STATUS, and the firmware knows no other platform command', () => {
    const g = new SevGuest()
    g.must(g.command(uapi.KVM_SEV_LAUNCH_START, start()))
    const place = g.sys.mmap(4096)
    const issue = (cmd: number) => {
      const bytes = new Uint8Array(16)
      const view = new DataView(bytes.buffer)
      view.setUint32(0, cmd, true)
      view.setBigUint64(4, place.vaddr, true)
      const errno = errnoOf(() => g.sys.ioctl(g.fd, 0xc0105300, bytes))
      return { errno, code: view.getUint32(12, true) }
    }
    expect(issue(1)).toEqual(OK)
    expect([...place.bytes.subarray(0, 12)]).toEqual([1, 51, 2, 0, 0, 0, 0, 3, 1, 0, 0, 0])
    expect(issue(2)).toEqual(EIO(0x11))
    expect(issue(14).errno).toBe('EINVAL')
    expect(errnoOf(() => g.sys.ioctl(g.fd, 0xc0105301, 0))).toBe('ENOTTY')
  })

  it('running out of anything on the way is ENOMEM, and leaves nothing behind', () => {
    const g = new SevGuest()
    g.must(g.command(uapi.KVM_SEV_LAUNCH_START, start()))
    const { failures } = g.host.kernel
    const room = g.sys.mmap(4096)
    const region = uapi.kvm_enc_region({ addr: g.vaddr, size: 0x3000n })
    // The test's own memory may be what runs out.
    const either = (call: () => { readonly errno: string }) => {
      let errno = ''
      const thrown = errnoOf(() => {
        errno = call().errno
      })
      return thrown || errno
    }
    const update = uapi.kvm_sev_launch_update_data({ uaddr: g.vaddr, len: 32 })
    const acts = [
      () => either(() => g.command(uapi.KVM_SEV_LAUNCH_UPDATE_DATA, update)),
      () => either(() => g.debug(uapi.KVM_SEV_DBG_DECRYPT, g.vaddr, room.vaddr, 16)),
      () => errnoOf(() => g.sys.ioctl(g.vm, uapi.KVM_MEMORY_ENCRYPT_REG_REGION, region)),
    ]
    for (const act of acts) {
      for (let n = 1; n < 10; n++) {
        failures.failNth(n)
        const errno = act()
        const passed = failures.disarm()
        if (passed.length < n) break
        expect(errno, passed.join()).toBe('ENOMEM')
        expect(g.host.frames.pins).toBe(0)
      }
    }
    expect(g.status().state).toBe(1)
  })
})

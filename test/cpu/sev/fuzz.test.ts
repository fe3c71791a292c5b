// Random command sequences over three VMs and two ASIDs against a small model of the state machine (C-14, C-15, C-20),
// through the ioctls; and random garbage in every structure, which may be refused and nothing else (C-13, C-18).
import { describe, expect, it } from 'vitest'
import { nodeCrypto } from '../../../src/cli/node-crypto.js'
import * as old from '../../../src/cpu/kvm/uapi/sev-2016.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import type { X86Vm } from '../../../src/cpu/kvm/x86/vm.js'
import { xorshift } from '../../support/random.js'
import { host } from '../kvm/guest.js'
import { AT, command, command2016, SevGuest, UNTOUCHED } from './guest.js'

const LONG = process.env['VFIO_EMU_LONG'] !== undefined
const NO_DEBUG = 1
const NO_SEND = 8

/** What a VM is in: no INIT, no guest, or a state of the firmware's. */
type State = 'none' | 'init' | 1 | 2 | 3 | 4 | 6
const text = (errno: string, code = UNTOUCHED) => `${errno} ${code.toString(16)}`
const OK = text('', 0)
const FW = (code: number) => text('EIO', code)

class Model {
  state: State = 'none'
  policy = 0
  readonly #asids: { used: number }
  constructor(asids: { used: number }) {
    this.#asids = asids
  }

  init(): string {
    if (this.state !== 'none') return text('EINVAL')
    if (this.#asids.used === 2) return text('EBUSY')
    this.#asids.used++
    this.state = 'init'
    return text('')
  }

  start(policy: number): string {
    if (this.state === 'none') return text('ENOTTY')
    if (this.state !== 'init') return FW(0xc)
    this.policy = policy
    this.state = 1
    return OK
  }

  /** A command that wants one state, and leads to another. */
  step(wanted: State, next: State, forbidden = 0): string {
    if (this.state === 'none') return text('ENOTTY')
    if (this.state === 'init') return text('EBADF')
    if (this.state !== wanted) return FW(2)
    if ((this.policy & forbidden) !== 0) return FW(7)
    this.state = next
    return OK
  }

  debug(): string {
    if (this.state === 'none') return text('ENOTTY')
    if (this.state === 'init') return text('EBADF')
    return (this.policy & NO_DEBUG) !== 0 ? FW(7) : OK
  }

  status(): string {
    if (typeof this.state === 'number') return OK
    return text(this.state === 'none' ? 'ENOTTY' : 'EBADF')
  }

  close(): void {
    if (this.state !== 'none') this.#asids.used--
  }
}

describe('random command sequences', () => {
  it.each([1, 2])('answer and change state as the model says, seed %i', seed => {
    const random = xorshift(seed)
    const on = host({}, { crypto: nodeCrypto, asids: 2 })
    const { sys } = on
    const kvm = sys.open('/dev/kvm')
    const fd = sys.open('/dev/sev')
    const page = sys.mmap(0x4000)
    const asids = { used: 0 }
    const make = () => ({ vm: sys.ioctl(kvm, uapi.KVM_CREATE_VM, 2), model: new Model(asids) })
    const vms = [make(), make(), make()]
    for (let n = 0; n < (LONG ? 6000 : 300); n++) {
      const which = random(3)
      const { vm, model } = vms[which]!
      const run = (id: number, data?: Parameters<typeof command>[4]) => {
        const { errno, code } = command(sys, vm, fd, id, data)
        return text(errno, code)
      }
      const policy = [0, 0, NO_DEBUG, NO_SEND][random(4)]!
      const uaddr = page.vaddr
      const room = {
        pdh_cert_uaddr: uaddr,
        pdh_cert_len: 8,
        plat_certs_uaddr: uaddr,
        plat_certs_len: 8,
        amd_certs_uaddr: uaddr,
        amd_certs_len: 8,
      }
      const session = { ...room, session_uaddr: uaddr + 0x1000n, session_len: 128 }
      // biome-ignore format: table
      const acts: readonly (readonly [() => string, () => string])[] = [
        [() => run(uapi.KVM_SEV_INIT2, uapi.kvm_sev_init()),                                                   () => model.init()],
        [() => run(uapi.KVM_SEV_LAUNCH_START, uapi.kvm_sev_launch_start({ policy })),                          () => model.start(policy)],
        [() => run(uapi.KVM_SEV_LAUNCH_UPDATE_DATA, uapi.kvm_sev_launch_update_data({ uaddr, len: 32 })),      () => model.step(1, 1)],
        [() => run(uapi.KVM_SEV_LAUNCH_MEASURE, uapi.kvm_sev_launch_measure({ uaddr: uaddr + 0x1000n, len: 48 })), () => model.step(1, 2)],
        [() => run(uapi.KVM_SEV_LAUNCH_FINISH),                                                                () => model.step(2, 3)],
        [() => run(uapi.KVM_SEV_SEND_START, uapi.kvm_sev_send_start(session)),                                 () => model.step(3, 4, NO_SEND)],
        [() => run(uapi.KVM_SEV_SEND_CANCEL),                                                                  () => model.step(4, 3)],
        [() => run(uapi.KVM_SEV_SEND_FINISH),                                                                  () => model.step(4, 6)],
        [() => run(uapi.KVM_SEV_DBG_DECRYPT, uapi.kvm_sev_dbg({ src_uaddr: uaddr, dst_uaddr: uaddr + 0x2000n, len: 1 + random(64) })), () => model.debug()],
      ]
      if (random(40) === 0) {
        sys.close(vm)
        model.close()
        vms[which] = make()
        continue
      }
      const act = random(acts.length)
      const [real, expected] = acts[act]!
      const before = model.state
      expect(real(), `step ${n}, command ${act} in ${before}`).toBe(expected())
      const status = uapi.kvm_sev_guest_status()
      expect(run(uapi.KVM_SEV_GUEST_STATUS, status), `step ${n}`).toBe(model.status())
      if (typeof model.state === 'number') expect(status.state, `step ${n}`).toBe(model.state)
      expect(on.platform!.firmware.asids.used.length).toBe(asids.used)
    }
    sys.exit()
    expect([
      on.platform!.firmware.asids.used,
      on.frames.pins,
      on.platform!.firmware.pages.count,
    ]).toEqual([[], 0, 0])
  })

  it.each([1, 2])(
    'garbage in every structure is refused, answered, and nothing else, seed %i',
    seed => {
      const random = xorshift(seed + 100)
      const on = host({}, { crypto: nodeCrypto, asids: 4, minPlainAsid: 2, snp: true })
      const { sys } = on
      const kvm = sys.open('/dev/kvm')
      const fd = sys.open('/dev/sev')
      const page = sys.mmap(0x4000)
      const word = () => {
        const kind = random(6)
        if (kind === 0) return 0
        if (kind === 1) return Number(page.vaddr & 0xffff_ffffn) + 16 * random(0x300)
        if (kind === 2) return random(64)
        if (kind === 3) return 16 * random(512)
        return random(2 ** 32)
      }
      const upper = Number(page.vaddr >> 32n)
      const garbage = () => {
        const bytes = new Uint8Array(128)
        const view = new DataView(bytes.buffer)
        for (let i = 0; i < 32; i++)
          view.setUint32(4 * i, i % 2 === 1 && random(3) > 0 ? upper : word(), true)
        return { bytes, view }
      }
      let vm = sys.ioctl(kvm, uapi.KVM_CREATE_VM, 2)
      for (let n = 0; n < (LONG ? 8000 : 500); n++) {
        if (random(50) === 0) {
          sys.close(vm)
          vm = sys.ioctl(kvm, uapi.KVM_CREATE_VM, [0, 2, 3, 4][random(4)]!)
        }
        const data = random(3) === 0 ? uapi.kvm_sev_init() : garbage()
        // Anything but an ErrnoError would come out of here.
        if (random(3) === 0) command2016(sys, vm, random(14), data)
        else command(sys, vm, random(20) === 0 ? random(5) : fd, random(24), data)
      }
      const start = old.kvm_sev_launch_start_2016({ policy: 5 })
      expect(command2016(sys, sys.ioctl(kvm, uapi.KVM_CREATE_VM, 0), 0, start).errno).toMatch(
        /^(|EBUSY)$/,
      )
      sys.exit()
      expect([on.platform!.firmware.asids.used, on.frames.pins]).toEqual([[], 0])
    },
  )
})

describe('hostile encrypted guests', () => {
  // biome-ignore format: table
  const REASONS = new Set<number | string>([
    uapi.KVM_EXIT_IO, uapi.KVM_EXIT_MMIO, uapi.KVM_EXIT_HLT, uapi.KVM_EXIT_SHUTDOWN,
    uapi.KVM_EXIT_FAIL_ENTRY, uapi.KVM_EXIT_INTERNAL_ERROR, 'EINTR',
  ])

  it.each([1, 2])(
    'random code, tables and ciphertext: KVM_RUN answers in its own words, no plaintext stays out, seed %i',
    seed => {
      const random = xorshift(seed + 50)
      const g = new SevGuest()
      g.encryptTables(AT.DATA, AT.DATA + 0x1000)
      g.launch()
      const vm = [...g.host.kvm.vms][0] as X86Vm
      const patch = g.sys.mmap(4096)
      /** Random bytes where the guest reads them: by debugging, or as ciphertext. */
      const scribble = (at: number, length: number) => {
        for (let i = 0; i < length; i++) patch.bytes[i] = random(256)
        if (random(4) > 0)
          g.must(g.debug(uapi.KVM_SEV_DBG_ENCRYPT, patch.vaddr, g.vaddr + BigInt(at), length))
        else g.ram.set(patch.bytes.subarray(0, length), at)
      }
      const seen = new Set<number | string>()
      for (let round = 0; round < (LONG ? 600 : 40); round++) {
        scribble(AT.CODE, 64 + random(192))
        if (random(3) === 0)
          scribble(
            [AT.PML4, AT.PDPT, AT.PD, AT.PT, AT.IDT, AT.GDT][random(6)]! + random(4000),
            1 + random(16),
          )
        if (random(2)) g.setSregs(() => {})
        else g.toUser()
        g.setRegs({
          rip: BigInt(AT.CODE),
          rsp: BigInt(AT.STACK),
          rflags: BigInt(random(2 ** 32) & 0xdd5),
        })
        for (let entry = 0; entry < 3; entry++) {
          const alarm = g.host.clock.later(() => {
            g.run.immediate_exit = 1
          }, 2000)
          const reason = g.enter()
          alarm.cancel()
          g.run.immediate_exit = 0
          expect(REASONS).toContain(reason)
          expect(vm.sev!.encryption!.memory.activePages).toBe(0)
          seen.add(reason)
          if (reason === uapi.KVM_EXIT_SHUTDOWN || reason === uapi.KVM_EXIT_FAIL_ENTRY) break
        }
        expect(g.status().state).toBe(3)
      }
      expect(seen.size).toBeGreaterThan(1)
    },
  )
})

// An arm64 vCPU's descriptor: initialisation, registers, events, debugging. What surrounds the core is processor.ts.

import type { StructValue } from '../../../base/struct.js'
import type { Process } from '../../../sys/process.js'
import { copyIn, copyInBytes, copyOut, refuse } from '../arguments.js'
import * as uapi from '../uapi/arm64.js'
import { Vcpu } from '../vcpu.js'
import { attributeCall } from './attributes.js'
import { DEBUG_CONTROLS, RUN_BYTES } from './extensions.js'
import { getOneReg, registerList, setOneReg } from './one-reg.js'
import { Arm64Processor } from './processor.js'
import { Arm64RunLoop } from './run.js'
import { TimerAttributes } from './timer-attributes.js'
import type { Arm64Vm } from './vm.js'

/** Feature bits that have a meaning, and those that this KVM has. */
const KNOWN_FEATURES = 0x1ff
const FEATURES = 1 << uapi.KVM_ARM_VCPU_PSCI_0_2
const POWER_OFF = 1 << uapi.KVM_ARM_VCPU_POWER_OFF
const tellBigints = (_: string, value: unknown) => (typeof value === 'bigint' ? `${value}` : value)

/** The file behind an arm64 vCPU's descriptor. */
export class Arm64Vcpu extends Vcpu {
  readonly processor: Arm64Processor
  readonly #vm: Arm64Vm
  readonly #loop: Arm64RunLoop
  readonly #timer: TimerAttributes
  #initialised = false

  constructor(vm: Arm64Vm, id: number) {
    super(vm, id, RUN_BYTES)
    this.#vm = vm
    this.processor = new Arm64Processor(vm, id)
    this.#loop = new Arm64RunLoop(this.processor, this.page)
    this.#timer = new TimerAttributes(vm)
  }

  /** Aff3.Aff2.Aff1.Aff0 in 32 bits, as the GIC has it. */
  get affinity(): number {
    const { affinity } = this.processor
    return Number(((affinity >> 32n) << 24n) | (affinity & 0xff_ffffn))
  }

  /** The core's whole state and the run page. */
  digest(): Uint8Array {
    const core = JSON.stringify(this.processor.core.save(), tellBigints)
    return Uint8Array.from([...new TextEncoder().encode(core), ...this.page])
  }

  memoryChanged(): void {
    this.processor.core.mmu.reload()
  }

  destroy(): void {
    this.processor.release()
  }

  protected run(): void {
    const vm = this.#vm
    if (!this.#initialised) throw notInitialised()
    if (vm.hasIrqchip) this.#mapInterrupts()
    vm.hasRun = true
    this.begun()
    this.#loop.enter()
  }

  // A controller that cannot be put in its place is the end of the VM.
  #mapInterrupts(): void {
    try {
      this.#vm.vgic.map()
    } catch (error) {
      this.#vm.die()
      throw error
    }
  }

  protected answer(cmd: number, arg: number, caller: Process): number | undefined {
    const p = this.processor
    switch (cmd) {
      case uapi.KVM_ARM_VCPU_INIT:
        return this.#initialise(copyIn(caller, arg, uapi.kvm_vcpu_init))
      case uapi.KVM_GET_ONE_REG:
        this.#needsInit()
        return getOneReg(p, arg, caller)
      case uapi.KVM_SET_ONE_REG:
        this.#needsInit()
        return setOneReg(p, arg, caller)
      case uapi.KVM_GET_REG_LIST:
        this.#needsInit()
        return registerList(arg, caller)
      case uapi.KVM_ARM_VCPU_FINALIZE:
        this.#needsInit()
        copyInBytes(caller, arg, 4)
        throw refuse('EINVAL', 'no feature has to be finalised')
      case uapi.KVM_GET_MP_STATE:
        copyOut(caller, arg, uapi.kvm_mp_state({ mp_state: this.#mpState }))
        return 0
      case uapi.KVM_SET_MP_STATE:
        return this.#setMpState(copyIn(caller, arg, uapi.kvm_mp_state).mp_state)
      case uapi.KVM_GET_VCPU_EVENTS:
        this.#needsInit()
        copyOut(caller, arg, this.#events())
        return 0
      case uapi.KVM_SET_VCPU_EVENTS:
        this.#needsInit()
        return this.#setEvents(copyIn(caller, arg, uapi.kvm_vcpu_events))
      case uapi.KVM_SET_GUEST_DEBUG:
        return this.#setGuestDebug(copyIn(caller, arg, uapi.kvm_guest_debug))
    }
    return attributeCall(this.#timer, cmd, arg, caller)
  }

  #needsInit(): void {
    if (!this.#initialised) throw notInitialised()
  }

  #initialise({ target, features }: StructValue<(typeof uapi.kvm_vcpu_init)['members']>): number {
    const vm = this.#vm
    const [first = 0, ...rest] = [...features]
    const asked = first & ~POWER_OFF
    if (target !== uapi.KVM_ARM_TARGET_GENERIC_V8) throw refuse('EINVAL', `target ${target}`)
    if ((asked & ~KNOWN_FEATURES) !== 0 || rest.some(v => v !== 0))
      throw refuse('ENOENT', 'features that nobody knows')
    if ((asked & ~FEATURES) !== 0) throw refuse('EINVAL', 'features that are not there')
    if (vm.features !== undefined && vm.features !== asked)
      throw refuse('EINVAL', 'vCPUs of a VM have the same features')
    vm.features = asked
    this.#initialised = true
    this.processor.reset()
    this.processor.rest = (first & POWER_OFF) !== 0 ? 'off' : undefined
    return 0
  }

  get #mpState(): number {
    const { rest } = this.processor
    if (rest === 'off') return uapi.KVM_MP_STATE_STOPPED
    return rest === 'suspended' ? uapi.KVM_MP_STATE_SUSPENDED : uapi.KVM_MP_STATE_RUNNABLE
  }

  #setMpState(value: number): number {
    const p = this.processor
    if (value === uapi.KVM_MP_STATE_RUNNABLE) p.rest = undefined
    else if (value === uapi.KVM_MP_STATE_STOPPED) p.rest = 'off'
    else if (value === uapi.KVM_MP_STATE_SUSPENDED) p.rest = 'suspended'
    else throw refuse('EINVAL', `mp_state ${value}`)
    return 0
  }

  #events() {
    const pending = this.processor.core.serrorPending !== undefined
    return uapi.kvm_vcpu_events({ exception: { serror_pending: pending ? 1 : 0 } })
  }

  // Without RAS an SError has no syndrome to be given. An external abort is taken at once.
  #setEvents({ exception }: StructValue<(typeof uapi.kvm_vcpu_events)['members']>): number {
    const { core } = this.processor
    if (exception.ext_dabt_pending !== 0) this.processor.abort()
    if (exception.serror_pending === 0) return 0
    if (exception.serror_has_esr !== 0)
      throw refuse('EINVAL', 'an SError has no syndrome on this processor')
    core.pendSerror()
    return 0
  }

  #setGuestDebug({ control, arch }: StructValue<(typeof uapi.kvm_guest_debug)['members']>): number {
    if ((control & ~DEBUG_CONTROLS) !== 0) throw refuse('EINVAL', `guest debug control ${control}`)
    const on = (control & uapi.KVM_GUESTDBG_ENABLE) !== 0
    const { core } = this.processor
    const { dbg_bcr, dbg_bvr, dbg_wcr, dbg_wvr } = arch
    const hardware = {
      bcr: Int32Array.from(dbg_bcr, v => Number(BigInt.asIntN(32, v))),
      bvr: BigUint64Array.from(dbg_bvr),
      wcr: Int32Array.from(dbg_wcr, v => Number(BigInt.asIntN(32, v))),
      wvr: BigUint64Array.from(dbg_wvr),
    }
    core.setGuestDebug(
      on
        ? {
            singleStep: (control & uapi.KVM_GUESTDBG_SINGLESTEP) !== 0,
            hardware: (control & uapi.KVM_GUESTDBG_USE_HW) !== 0 ? hardware : undefined,
          }
        : undefined,
    )
    return 0
  }
}

const notInitialised = () => refuse('ENOEXEC', 'the vCPU is not initialised')

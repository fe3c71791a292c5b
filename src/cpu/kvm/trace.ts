// Trace points of the KVM room.

declare module '../../base/trace.js' {
  interface TraceEvents {
    /** KVM_RUN is about to return. `reason` is KVM_EXIT_* without the prefix; details as far as the reason has them. */
    'kvm.exit': {
      readonly vcpu: number
      readonly reason: string
      readonly rip: bigint
      readonly address?: number
      readonly write?: boolean
      readonly size?: number
    }
    /** An exception is being delivered to the guest. */
    'kvm.exception': {
      readonly vcpu: number
      readonly vector: number
      readonly error: number | undefined
      readonly rip: bigint
      /** For page faults. */
      readonly cr2: bigint | undefined
      readonly cpl: number
    }
    /** ENQCMD or ENQCMDS named a PASID; `host` is -1 when it has no translation and nothing was sent. */
    'kvm.enqcmd': { readonly vcpu: number; readonly guest: number; readonly host: number }
    /** An interrupt is being delivered to the guest. */
    'kvm.interrupt': { readonly vcpu: number; readonly vector: number; readonly rip: bigint }
  }
}

export {}

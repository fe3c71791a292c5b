// Trace points of the KVM room.

declare module '../../base/trace.js' {
  interface TraceEvents {
    /** KVM_RUN is about to return. `reason` is KVM_EXIT_* without the prefix; details as far as the reason has them, `rip` on arm64 PC. */
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
    /** Guest-physical memory was mapped: a block of level 1 (4 KiB), 2 (2 MiB) or 3 (1 GiB). */
    'kvm.map': { readonly gpa: number; readonly level: 1 | 2 | 3; readonly private: boolean }
    /** Pages became private or shared; told when it is so. */
    'kvm.attributes': { readonly gpa: number; readonly bytes: number; readonly private: boolean }
    /** A page of private memory was asked for and its owner must settle it (KVM_EXIT_MEMORY_FAULT). */
    'kvm.memory-fault': {
      readonly vcpu: number
      readonly gpa: number
      readonly private: boolean
      readonly errno: string
    }
    /** An interrupt is being delivered to the guest. */
    'kvm.interrupt': { readonly vcpu: number; readonly vector: number; readonly rip: bigint }
  }
}

export {}

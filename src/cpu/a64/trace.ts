// Trace points of the A64 core.

declare module '../../base/trace.js' {
  interface TraceEvents {
    /** An exception is taken to EL1. `vector` is the index of its slot, 0 to 15; `far` is told where the class has one. */
    'a64.exception': {
      readonly vcpu: number
      readonly vector: number
      readonly esr: bigint | undefined
      readonly elr: bigint
      readonly far: bigint | undefined
    }
    /** The hypervisor's configuration took an access of the guest (EC as an exception to EL2 would have it) and emulated it. */
    'a64.trap': {
      readonly vcpu: number
      readonly pc: bigint
      readonly ec: number
      readonly iss: number
      readonly register: string
    }
    /** Strict mode: a register was used before the ISB that a write to it needs. */
    'a64.use-before-isb': {
      readonly vcpu: number
      readonly register: string
      readonly writtenAt: bigint
      readonly usedAt: bigint
      readonly use: string
      readonly old: bigint
      readonly written: bigint
    }
  }
}

export {}

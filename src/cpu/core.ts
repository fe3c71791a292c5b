// What a core is to the rest of the house: something that runs instructions and says why it stopped.
// Knows nothing of an architecture; the x86-64 core is x86/core.ts, the ioctls around it are kvm/.

/**
 * Why a core stopped. `io` and `mmio` name a device access that nobody inside the machine claims: the
 * instruction has not retired; after `completeAccess` the next `run` finishes it.
 */
export type Exit =
  /** The instruction budget of this `run` is spent. */
  | { readonly kind: 'limit' }
  /** Somebody called `requestExit`. */
  | { readonly kind: 'interrupted' }
  /** HLT retired and no interrupt can be delivered now. */
  | { readonly kind: 'hlt' }
  /** Triple fault. */
  | { readonly kind: 'shutdown' }
  /** A port access. `value` holds the bytes going out; `size` is 1, 2 or 4. */
  | {
      readonly kind: 'io'
      readonly write: boolean
      readonly port: number
      readonly size: number
      readonly value: number
    }
  /** A guest-physical access without a home. `bytes` go out on a write and are zero on a read; 1 to 64 of them. */
  | {
      readonly kind: 'mmio'
      readonly write: boolean
      readonly address: number
      readonly bytes: Uint8Array
    }
  /** VMCALL or VMMCALL, HVC or SMC with their immediate; arguments are in the registers, PC is past the instruction. */
  | { readonly kind: 'hypercall'; readonly call?: 'hvc' | 'smc'; readonly immediate?: number }
  /**
   * A breakpoint, watchpoint or single step that the debugger asked to see. `address` is PC, `vector` the x86 vector
   * or the A64 exception class; `syndrome` is DR6 or ESR as EL2 would see it, `far` a watchpoint's data address.
   */
  | {
      readonly kind: 'debug'
      readonly vector: number
      readonly address: bigint
      readonly syndrome?: number
      readonly far?: bigint
    }
  /** Interrupts became deliverable and the owner asked to be told. */
  | { readonly kind: 'interrupt-window' }
  /** The state is one this core cannot enter. */
  | { readonly kind: 'fail-entry'; readonly reason: string }

/** A core, whatever its architecture. Instruction counts are the core's unit of time. */
export interface Core {
  /** Runs until something stops it, at most `maxInstructions`; `retired` tells how many ran. */
  run(maxInstructions: number): Exit
  /** Runs one instruction (one iteration of a repeated string instruction). */
  step(): Exit
  /** Instructions retired since the core was made. A double: exact for 285 years at 1 GHz. */
  readonly retired: number
  /** Makes `run` return `interrupted` before the next block. */
  requestExit(): void
  /** Answers the access of the last `io` or `mmio` exit: data for a read, nothing for a write. */
  completeAccess(bytes?: Uint8Array): void
}

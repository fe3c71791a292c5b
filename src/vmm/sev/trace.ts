// What the VMM of an encrypted guest says about itself on the trace bus.

declare module '../../base/trace.js' {
  interface TraceEvents {
    /** A step of a launch, as the kernel took it. */
    'vmm.sev': {
      readonly step: 'init' | 'start' | 'update' | 'measure' | 'secret' | 'finish' | 'reset'
      readonly text: string
      /** Hexadecimal, of `measure` and `finish`. */
      readonly measurement?: string
    }
    /** The guest asked for the host's view of one of its pages: the bytes there, and what debugging makes of them. */
    'vmm.look': {
      /** Guest-physical. */
      readonly address: number
      /** The first 16 bytes, hexadecimal. */
      readonly raw: string
      /** The same through a debug-marked access. */
      readonly debug: string
    }
  }
}

export {}

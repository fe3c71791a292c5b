// The part of the WebAssembly interface that is used here: the ES library declares none of it.

declare const WebAssembly: {
  readonly Memory: new (limits: { initial: number }) => WasmMemory
  readonly Module: new (bytes: Uint8Array) => object
  readonly Instance: new (
    module: object,
    imports: Record<string, Record<string, unknown>>,
  ) => { readonly exports: Record<string, unknown> }
}

export interface WasmMemory {
  readonly buffer: ArrayBuffer
}

/** A memory of so many bytes, a multiple of 64 KiB. */
export const newMemory = (bytes: number): WasmMemory =>
  new WebAssembly.Memory({ initial: bytes / 65536 })

/** The function `run` of a module over a memory. */
export function instantiate(bytes: Uint8Array, memory: WasmMemory): (argument: number) => number {
  const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { m: { memory } })
  return instance.exports['run'] as (argument: number) => number
}

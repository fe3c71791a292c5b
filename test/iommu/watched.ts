// Memory that tells when somebody reaches outside of what an address can be.
import type { AddressSpace } from '../../src/mem/address-space.js'

/** Makes every access to an address that is no whole number below 2^52 throw. */
export function watched(memory: AddressSpace): void {
  const methods = memory as unknown as Record<string, (at: number, ...rest: unknown[]) => unknown>
  for (const name of ['readEntry', 'orEntry', 'read', 'write', 'writeU32', 'load', 'store']) {
    const real = methods[name]?.bind(memory)
    if (!real) continue
    methods[name] = (at, ...rest) => {
      if (!Number.isInteger(at) || at < 0 || at >= 2 ** 52) throw new Error(`${name} at ${at}`)
      return real(at, ...rest)
    }
  }
}

// The matchers' types on vitest's `expect`. Types only: vitest is an optional peer, and nothing here loads it.
import type {} from 'vitest'
import type { ErrnoName } from '../base/errno.js'

declare module 'vitest' {
  // biome-ignore lint/suspicious/noExplicitAny: merged declarations need vitest's own parameter and its default
  interface Matchers<T = any> {
    /** The function throws an ErrnoError with this code. */
    toRefuse(code: ErrnoName): void
    /** The function returns, with this value when one is given. */
    toSucceed(value?: unknown): void
    /** The outcome of a DMA request is this fault; its PASID and address too where given. */
    toFaultWith(
      fault: string,
      more?: { readonly pasid?: number | undefined; readonly at?: bigint },
    ): void
    /** Nothing is held beyond what the bench's machine itself holds. */
    toHoldNothing(): void
  }
}

/**
 * sva-engine: a data mover made for shared virtual addressing. Eight work queues take 64-byte
 * descriptors, each under the PASID of its submitter or of its queue, work on the process's own
 * pointers, wait for missing pages when asked to, and report in completion records. The ideas are those
 * of public accelerators (shared work queues, ENQCMD portals, completion records); the layout is ours.
 * Next: sva-engine/registers.ts and descriptors.ts (the layout), queue.ts (the behaviour).
 */
import { ats, defineDevice, msix, pasidCapability, pri, type RequestTag } from '../device-model.js'
import { Mover } from './sva-engine/operations.js'
import { type EngineServices, type QueueState, WorkQueue } from './sva-engine/queue.js'
import { QUEUES, queueRegister, queueRegisters, SVA_ENGINE } from './sva-engine/registers.js'

export { DESCRIPTOR, OPCODE, RECORD, STATUS } from './sva-engine/descriptors.js'
export {
  ERROR_CODE,
  MODE,
  PORTAL_DEPTH,
  QUEUE,
  queueOffset,
  SVA_ENGINE,
} from './sva-engine/registers.js'

/** The BAR of the portals, one 4 KiB page a queue. */
export const PORTAL_BAR = 4

export const svaEngine = defineDevice({
  name: 'sva-engine',
  identity: { vendorId: 0x1234, deviceId: 0x0e5a, classCode: 0x12_0000, revision: 1 },
  capabilities: [
    msix({ vectors: 16, bar: 2 }),
    ats(),
    pri({ capacity: 64 }),
    pasidCapability({ width: 20 }),
  ],
  bar0: SVA_ENGINE,
  portal: { bar: PORTAL_BAR, size: QUEUES * 4096 },

  create(port, regs) {
    const mover = new Mover(port.dma)
    const stalled = new Set<WorkQueue>()
    let outstanding = 0

    const reportFor =
      (queue: number) => (code: number, tag: RequestTag | undefined, at: bigint) => {
        const { ERROR, ERROR_PASID, ERROR_ADDRESS } = regs
        if (ERROR.VALID) ERROR.OVERFLOW = true
        else {
          ERROR.VALID = true
          ERROR.CODE = code
          ERROR.QUEUE = queue
          ERROR_PASID.EN = tag?.pasid !== undefined
          ERROR_PASID.ID = tag?.pasid ?? 0
          ERROR_ADDRESS.ADDR = at
        }
        port.interrupt(0)
      }
    const services = (queue: number): EngineServices => ({
      port,
      mover,
      report: reportFor(queue),
      outstanding(change) {
        outstanding += change
        if (change > 0) return
        const waiting = [...stalled]
        stalled.clear()
        for (const q of waiting) q.resume()
      },
      stall(q) {
        if (outstanding > 0) stalled.add(q)
        return outstanding > 0
      },
    })
    const queues = Array.from(
      { length: QUEUES },
      (_, n) => new WorkQueue(queueRegisters(regs, n), services(n)),
    )
    const reset = () => {
      outstanding = 0
      stalled.clear()
      for (const q of queues) q.reset()
    }

    const onWrite: Record<string, (written: never) => void> = {}
    queues.forEach((q, n) => {
      onWrite[queueRegister(n, 'CONFIG')] = () => q.configure()
      onWrite[queueRegister(n, 'TAIL')] = () => q.doorbell()
      onWrite[queueRegister(n, 'STATUS')] = () => q.unhalt()
      onWrite[queueRegister(n, 'COMMAND')] = (w: { ABORT: boolean; DRAIN: boolean }) => {
        if (w.ABORT) q.abort()
        if (w.DRAIN) q.drain()
      }
    })
    return {
      onWrite,
      portal: (offset, bytes, deferrable) =>
        queues[offset >>> 12]?.submit(bytes, deferrable) ?? false,
      resumed(token, retry) {
        for (const q of queues) q.resumed(token, retry)
      },
      reset,
      save: () => queues.map(q => q.save()),
      restore(state) {
        reset()
        for (const [n, q] of queues.entries()) q.restore((state as QueueState[])[n]!)
      },
    }
  },
})

// `vfio-emu run --gdb PORT`: one debugger at a TCP port of this computer. The guest does not begin before it has come,
// and runs in slices between which its packets are read.

import { createServer, type Server, type Socket } from 'node:net'
import type { VirtualClock } from '../base/clock.js'
import type { Arm64Vmm } from '../vmm/arm64/vmm.js'
import { GdbStub } from '../vmm/gdb/stub.js'
import type { GuestEnd, Vmm } from '../vmm/vmm.js'
import { UsageError } from './output.js'

/** Virtual nanoseconds that the guest runs between looks at the debugger. */
const SLICE_NS = 200_000
/** Returns from KVM_RUN between looks. */
const PAUSES = 64
/** KVM_EXIT_DEBUG. */
const DEBUG = 4

/** Where the debugger comes in, and who is told. */
export interface GdbOptions {
  /** TCP port; 0 for any that is free. */
  readonly port: number
  /** Runs when the port is open. */
  readonly listening: (port: number) => void
}

/** Runs a guest under a debugger to its end. UsageError: the port cannot be had. */
export async function serveGdb(
  clock: VirtualClock,
  vmm: Vmm | Arm64Vmm,
  { port, listening }: GdbOptions,
): Promise<GuestEnd> {
  const server = await listen(port)
  try {
    const address = server.address()
    listening(address !== null && typeof address === 'object' ? address.port : port)
    const socket = await connection(server)
    const target = vmm.debugTarget()
    try {
      return await session(clock, vmm, target, socket)
    } finally {
      target.release()
      socket.destroy()
    }
  } finally {
    server.close()
  }
}

async function session(
  clock: VirtualClock,
  vmm: Vmm | Arm64Vmm,
  target: ReturnType<Vmm['debugTarget']>,
  socket: Socket,
): Promise<GuestEnd> {
  const stub = new GdbStub(vmm.debugged, target, bytes => {
    if (socket.writable) socket.write(bytes)
  })
  // Who waits for something of the debugger's to come.
  let heard = () => {}
  socket.setNoDelay(true)
  socket.on('data', bytes => {
    stub.receive(bytes)
    heard()
  })
  socket.on('error', () => socket.destroy())
  socket.on('close', () => {
    stub.disconnected()
    heard()
  })
  const slice = clock.timer(() => vmm.kick())
  try {
    for (;;) {
      switch (stub.state) {
        case 'killed':
          return { kind: 'killed' }
        case 'detached':
          return vmm.run()
        case 'stopped':
          await new Promise<void>(resolve => {
            heard = resolve
          })
          break
        default: {
          slice.start(SLICE_NS)
          const end = vmm.run(stub.state === 'stepping' ? 1 : PAUSES)
          if (end.kind === 'unexpected' && end.reason === DEBUG) stub.stopped()
          else if (end.kind !== 'limit') {
            stub.exited(end.kind === 'exit' ? end.code : 1)
            await written(socket)
            return end
          } else await new Promise(resolve => setImmediate(resolve))
          if (stub.interrupted) stub.stoppedByRequest()
        }
      }
    }
  } finally {
    slice.cancel()
  }
}

function listen(port: number): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', error =>
      reject(new UsageError(`no debugger can come in: ${error.message}`)),
    )
    server.listen(port, '127.0.0.1', () => resolve(server))
  })
}

/** The first that comes; others are turned away. */
function connection(server: Server): Promise<Socket> {
  return new Promise(resolve => {
    let taken = false
    server.on('connection', socket => {
      if (taken) socket.destroy()
      else {
        taken = true
        resolve(socket)
      }
    })
  })
}

const written = (socket: Socket): Promise<void> =>
  new Promise(resolve => {
    socket.end(() => resolve())
    socket.once('close', () => resolve())
  })

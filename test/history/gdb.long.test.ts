// A run that a debugger stopped, looked into and changed, recorded, and done again without it.
import { expect, it } from 'vitest'
import { GUEST, readImage } from '../../src/cli/guest.js'
import { DEFAULT_MACHINE } from '../../src/cli/machine-file.js'
import { createMachine } from '../../src/machine.js'
import { packet } from '../../src/vmm/gdb/packets.js'
import { GdbStub } from '../../src/vmm/gdb/stub.js'
import { Vmm } from '../../src/vmm/vmm.js'

it.runIf(process.env['VFIO_EMU_LONG'])(
  'breakpoints, steps and writes of a debugger are replayed',
  () => {
    const machine = createMachine({ ...DEFAULT_MACHINE, record: true })
    const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
    const device = '0000:01:00.0'
    const group = machine.groupOf(device)
    const image = readImage(GUEST)
    const vmm = new Vmm({ sys, trace: machine.trace, ramBytes: 64 * 2 ** 20, image, group, device })
    const target = vmm.debugTarget()
    const stub = new GdbStub(vmm.debugged, target, () => {})
    const send = (text: string) => stub.receive(packet(text))
    const untilStopped = () => {
      while (stub.state !== 'stopped') {
        const end = vmm.run(1)
        if (end.kind === 'unexpected') stub.stopped()
      }
    }
    send('Z0,101680,1')
    send('Z2,10c000,4')
    send('c')
    untilStopped()
    send('z0,101680,1')
    send('M10fff0,4:01020304')
    for (let i = 0; i < 20; i++) {
      send('s')
      untilStopped()
    }
    send('M10fff0,4:00000000')
    send('D')
    expect(vmm.run()).toEqual({ kind: 'exit', code: 0 })
    target.release()
    vmm.close()
    sys.exit()
    machine.settle()
    const saved = machine.save()
    const again = createMachine({ ...DEFAULT_MACHINE, record: true })
    again.restore(saved)
    expect(again.save().state).toBe(saved.state)
  },
)

// A board as kvm-unit-tests expects it: RAM, GICv3 with ITS, generic timer, PSCI and one UART, on the arm64 KVM calls.
// vCPUs take turns on one thread; a timer of the machine's clock ends a turn, as a signal would.

import { ErrnoError } from '../../src/base/errno.js'
import * as kvm from '../../src/cpu/kvm/uapi/arm64.js'
import { createMachine } from '../../src/index.js'
import { type FdtNode, flatten } from './fdt.js'
import { Pl011 } from './pl011.js'

const MIB = 2 ** 20
const RAM = 0x4000_0000
const LOAD_AT = 0x8_0000
const DIST = 0x0800_0000
const ITS = 0x0808_0000
const REDIST = 0x080a_0000
const UART = 0x0900_0000
const UART_SPI = 33
/** A slow processor: the tests wait for real-looking times, and each nanosecond of them is executed. */
const NS_PER_INSTRUCTION = 50
/** Virtual time of a turn, ns. */
const TURN = 1_000_000
const [X0, PC] = [0x6030_0000_0010_0000n, 0x6030_0000_0010_0040n]

/** What is run, and with how much. */
export interface BoardOptions {
  /** Flat image, entered at its first byte. */
  readonly image: Uint8Array
  readonly bootargs: string
  readonly cpus: number
  readonly ramMiB: number
  /** Where it is loaded, from the start of RAM on; kvm-unit-tests want 512 KiB. */
  readonly loadAt?: number
  /** Virtual nanoseconds that an instruction takes. */
  readonly nsPerInstruction?: number
  /** Called with each character of the UART, as it comes. */
  readonly onText?: (character: string) => void
  /** Virtual time after which a test that does not end is stopped, ns. */
  readonly limitNs: number
}

/** How it ended, and what the UART said. */
export interface BoardResult {
  readonly end: 'off' | 'reset' | 'limit' | `exit ${number}` | `stuck: ${string}`
  readonly output: string
}

function deviceTree({ bootargs, cpus, ramMiB }: BoardOptions): Uint8Array {
  const ppi = (n: number) => [1, n, 0xf04]
  const cpu = (i: number): [string, FdtNode] => [
    `cpu@${i}`,
    {
      properties: {
        device_type: 'cpu',
        compatible: 'arm,cortex-a57',
        reg: [i],
        ...(cpus > 1 ? { 'enable-method': 'psci' } : {}),
      },
    },
  ]
  return flatten({
    properties: {
      '#address-cells': [2],
      '#size-cells': [2],
      compatible: 'linux,dummy-virt',
      'interrupt-parent': [1],
    },
    children: {
      psci: { properties: { compatible: ['arm,psci-1.0', 'arm,psci-0.2'], method: 'hvc' } },
      'memory@40000000': { properties: { device_type: 'memory', reg: [0, RAM, 0, ramMiB * MIB] } },
      cpus: {
        properties: { '#address-cells': [1], '#size-cells': [0] },
        children: Object.fromEntries(Array.from({ length: cpus }, (_, i) => cpu(i))),
      },
      timer: {
        properties: {
          compatible: 'arm,armv8-timer',
          'always-on': true,
          interrupts: [13, 14, 11, 10].flatMap(ppi),
        },
      },
      'intc@8000000': {
        properties: {
          compatible: 'arm,gic-v3',
          phandle: [1],
          'interrupt-controller': true,
          '#interrupt-cells': [3],
          '#address-cells': [2],
          '#size-cells': [2],
          ranges: true,
          reg: [0, DIST, 0, 0x1_0000, 0, REDIST, 0, 0x2_0000 * cpus],
        },
        children: {
          'its@8080000': {
            properties: {
              compatible: 'arm,gic-v3-its',
              phandle: [2],
              'msi-controller': true,
              reg: [0, ITS, 0, 0x2_0000],
            },
          },
        },
      },
      'apb-pclk': {
        properties: {
          compatible: 'fixed-clock',
          '#clock-cells': [0],
          'clock-frequency': [24_000_000],
          phandle: [3],
        },
      },
      'pl011@9000000': {
        properties: {
          compatible: ['arm,pl011', 'arm,primecell'],
          reg: [0, UART, 0, 0x1000],
          interrupts: [0, UART_SPI - 32, 4],
          clocks: [3, 3],
          'clock-names': ['uartclk', 'apb_pclk'],
        },
      },
      chosen: { properties: { bootargs, 'stdout-path': '/pl011@9000000' } },
    },
  })
}

/** Runs an image to its end. */
export function runBoard(options: BoardOptions): BoardResult {
  const { image, cpus, ramMiB, limitNs, loadAt = LOAD_AT } = options
  const machine = createMachine({
    cpu: 'arm64',
    nsPerInstruction: options.nsPerInstruction ?? NS_PER_INSTRUCTION,
    ramBytes: (ramMiB + 64) * MIB,
  })
  const { clock } = machine
  const sys = machine.spawn({ memlock: Infinity })
  const ram = sys.mmap(ramMiB * MIB)
  ram.bytes.set(image, loadAt)
  const tree = deviceTree(options)
  const treeAt = RAM + (ramMiB - 2) * MIB
  ram.bytes.set(tree, treeAt - RAM)

  const system = sys.open('/dev/kvm')
  const vm = sys.ioctl(system, kvm.KVM_CREATE_VM, 0)
  const slot = kvm.kvm_userspace_memory_region({
    guest_phys_addr: BigInt(RAM),
    memory_size: BigInt(ram.length),
    userspace_addr: ram.vaddr,
  })
  sys.ioctl(vm, kvm.KVM_SET_USER_MEMORY_REGION, slot)
  const target = kvm.kvm_vcpu_init()
  sys.ioctl(vm, kvm.KVM_ARM_PREFERRED_TARGET, target)
  const runBytes = sys.ioctl(system, kvm.KVM_GET_VCPU_MMAP_SIZE)
  const vcpus = Array.from({ length: cpus }, (_, i) => {
    const fd = sys.ioctl(vm, kvm.KVM_CREATE_VCPU, i)
    const features =
      (1 << kvm.KVM_ARM_VCPU_PSCI_0_2) | (i > 0 ? 1 << kvm.KVM_ARM_VCPU_POWER_OFF : 0)
    const init = kvm.kvm_vcpu_init({ target: target.target, features: [features] })
    sys.ioctl(fd, kvm.KVM_ARM_VCPU_INIT, init)
    return { fd, run: kvm.kvm_run.at(sys.mmap({ fd, offset: 0, length: runBytes }).bytes) }
  })

  const device = (type: number) => {
    const create = kvm.kvm_create_device({ type })
    sys.ioctl(vm, kvm.KVM_CREATE_DEVICE, create)
    return create.fd
  }
  const word = sys.mmap(4096)
  const pointer = (value: bigint) => {
    new DataView(word.bytes.buffer, word.bytes.byteOffset).setBigUint64(0, value, true)
    return word.vaddr
  }
  const attribute = (fd: number, group: number, attr: number, value?: number) => {
    const addr = value === undefined ? 0n : pointer(BigInt(value))
    sys.ioctl(fd, kvm.KVM_SET_DEVICE_ATTR, kvm.kvm_device_attr({ group, attr: BigInt(attr), addr }))
  }
  const gic = device(kvm.KVM_DEV_TYPE_ARM_VGIC_V3)
  attribute(gic, kvm.KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, 256)
  attribute(gic, kvm.KVM_DEV_ARM_VGIC_GRP_ADDR, kvm.KVM_VGIC_V3_ADDR_TYPE_DIST, DIST)
  attribute(gic, kvm.KVM_DEV_ARM_VGIC_GRP_ADDR, kvm.KVM_VGIC_V3_ADDR_TYPE_REDIST, REDIST)
  attribute(gic, kvm.KVM_DEV_ARM_VGIC_GRP_CTRL, kvm.KVM_DEV_ARM_VGIC_CTRL_INIT)
  const its = device(kvm.KVM_DEV_TYPE_ARM_VGIC_ITS)
  attribute(its, kvm.KVM_DEV_ARM_VGIC_GRP_ADDR, kvm.KVM_VGIC_ITS_ADDR_TYPE, ITS)
  attribute(its, kvm.KVM_DEV_ARM_VGIC_GRP_CTRL, kvm.KVM_DEV_ARM_VGIC_CTRL_INIT)

  const setRegister = (id: bigint, value: number) => {
    const addr = pointer(BigInt(value))
    sys.ioctl(vcpus[0]!.fd, kvm.KVM_SET_ONE_REG, kvm.kvm_one_reg({ id, addr }))
  }
  setRegister(PC, RAM + loadAt)
  setRegister(X0, treeAt)

  let output = ''
  const uart = new Pl011(
    character => {
      output += character
      options.onText?.(character)
    },
    level => {
      const irq = (kvm.KVM_ARM_IRQ_TYPE_SPI << kvm.KVM_ARM_IRQ_TYPE_SHIFT) | UART_SPI
      sys.ioctl(vm, kvm.KVM_IRQ_LINE, kvm.kvm_irq_level({ irq, level: level ? 1 : 0 }))
    },
  )
  let idle = 0
  for (let turn = 0; clock.now < limitNs; turn = (turn + 1) % cpus) {
    const { fd, run } = vcpus[turn]!
    const alarm = clock.later(() => {
      run.immediate_exit = 1
    }, TURN)
    for (;;) {
      try {
        sys.ioctl(fd, kvm.KVM_RUN)
      } catch (error) {
        if (!(error instanceof ErrnoError) || error.code !== 'EINTR')
          return { end: `stuck: ${(error as Error).message}`, output }
        break
      }
      if (run.exit_reason === kvm.KVM_EXIT_MMIO) {
        const { phys_addr, is_write, data, len } = run.u.mmio
        const at = Number(phys_addr) - UART
        const view = new DataView(data.buffer, data.byteOffset, 8)
        if (is_write) uart.write(at, view.getUint16(0, true))
        else {
          data.fill(0, 0, len)
          view.setUint16(0, uart.read(at), true)
        }
      } else if (run.exit_reason === kvm.KVM_EXIT_SYSTEM_EVENT) {
        const reset = run.u.system_event.type === kvm.KVM_SYSTEM_EVENT_RESET
        return { end: reset ? 'reset' : 'off', output }
      } else return { end: `exit ${run.exit_reason}`, output }
      if (clock.now >= limitNs) break
    }
    idle = run.immediate_exit ? 0 : idle + 1
    run.immediate_exit = 0
    alarm.cancel()
    if (idle > 4 * cpus) return { end: 'stuck: every vCPU waits for nothing', output }
  }
  return { end: 'limit', output }
}

// An arm64 Linux in the VMM of `vfio-emu run --iommu smmuv3`: behind its virtual SMMUv3, with two functions passed through,
// so that the kernel's own SMMU, ITS and PCI code meet ours. The console is the VMM's, which Linux takes for an 8250.

import { createMachine } from '../src/machine.js'
import { svaEngine } from '../src/pci/devices/sva-engine.js'
import { ARM64_MAP } from '../src/vmm/arm64/map.js'
import { Arm64Vmm } from '../src/vmm/arm64/vmm.js'
import { type FdtNode, flatten } from './kvm-unit-tests/fdt.js'

const MIB = 2 ** 20
const STUB = 0x10_0000
const KERNEL = 0x20_0000
/** Instructions that load X0 and the kernel's address from behind them, clear X1 to X3, and branch. */
const CODE = [
  0x5800_0100, 0xaa1f_03e1, 0xaa1f_03e2, 0xaa1f_03e3, 0x5800_00c4, 0xd61f_0080, 0xd503_201f,
  0xd503_201f,
]
/** The console's driver, and its own SMMU default domains translated and strict. */
export const SMMU_BOOTARGS =
  'earlycon=uart8250,mmio,0x9000000 keep_bootcon iommu.passthrough=0 iommu.strict=1'

/** Edge-triggered SPIs of the virtual SMMU. */
const spi = (intid: number) => [0, intid - 32, 1]
const { RAM, SMMU, SMMU_SIZE, ECAM, BARS, GIC_DISTRIBUTOR, GIC_REDISTRIBUTOR, GIC_ITS } = ARM64_MAP
const MAP = ARM64_MAP

function deviceTree(bootargs: string, ramMiB: number): Uint8Array {
  const ppi = (n: number) => [1, n, 0xf04]
  const its: FdtNode = {
    properties: {
      compatible: 'arm,gic-v3-its',
      phandle: [2],
      'msi-controller': true,
      '#msi-cells': [1],
      reg: [0, GIC_ITS, 0, 0x2_0000],
    },
  }
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
        children: {
          'cpu@0': {
            properties: { device_type: 'cpu', compatible: 'arm,cortex-a57', reg: [0] },
          },
        },
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
          reg: [0, GIC_DISTRIBUTOR, 0, 0x1_0000, 0, GIC_REDISTRIBUTOR, 0, 0x2_0000],
        },
        children: { 'its@8080000': its },
      },
      'iommu@9050000': {
        properties: {
          compatible: 'arm,smmu-v3',
          phandle: [4],
          '#iommu-cells': [1],
          reg: [0, SMMU, 0, SMMU_SIZE],
          'dma-coherent': true,
          interrupts: [MAP.SPI_EVENTQ, MAP.SPI_PRIQ, MAP.SPI_SYNC, MAP.SPI_GERROR].flatMap(spi),
          'interrupt-names': ['eventq', 'priq', 'cmdq-sync', 'gerror'],
        },
      },
      'pcie@3f000000': {
        properties: {
          compatible: 'pci-host-ecam-generic',
          device_type: 'pci',
          '#address-cells': [3],
          '#size-cells': [2],
          'bus-range': [0, 0],
          'dma-coherent': true,
          reg: [0, ECAM, 0, 0x10_0000],
          ranges: [0x200_0000, 0, BARS, 0, BARS, 0, 0x200_0000],
          'msi-map': [0, 2, 0, 0x1_0000],
          'iommu-map': [0, 4, 0, 0x1_0000],
        },
      },
      chosen: { properties: { bootargs } },
    },
  })
}

/** An executable of segments at offsets in RAM, entered at the first; `room` is what a segment takes in memory. */
function executable(
  segments: readonly { at: number; bytes: Uint8Array; room?: number }[],
): Uint8Array {
  const head = 64 + 56 * segments.length
  const elf = new Uint8Array(segments.reduce((n, s) => n + s.bytes.length, head))
  const v = new DataView(elf.buffer)
  elf.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
  v.setUint16(16, 2, true)
  v.setUint16(18, 183, true)
  v.setBigUint64(24, BigInt(RAM + segments[0]!.at), true)
  v.setBigUint64(32, 64n, true)
  v.setUint16(54, 56, true)
  v.setUint16(56, segments.length, true)
  let file = head
  for (const [i, { at, bytes, room = 0 }] of segments.entries()) {
    const h = 64 + 56 * i
    v.setUint32(h, 1, true)
    v.setBigUint64(h + 8, BigInt(file), true)
    for (const o of [16, 24]) v.setBigUint64(h + o, BigInt(RAM + at), true)
    v.setBigUint64(h + 32, BigInt(bytes.length), true)
    v.setBigUint64(h + 40, BigInt(Math.max(bytes.length, room)), true)
    elf.set(bytes, file)
    file += bytes.length
  }
  return elf
}

/** Runs a kernel to its end, telling its console and what became of its SMMU's tables line by line. */
export function runBehindSmmu(
  image: Uint8Array,
  bootargs: string,
  ramMiB: number,
  tell: (line: string) => void,
): string {
  const treeAt = (ramMiB - 8) * MIB
  const stub = new Uint8Array(48)
  const view = new DataView(stub.buffer)
  for (const [i, word] of CODE.entries()) view.setUint32(4 * i, word, true)
  view.setBigUint64(32, BigInt(RAM + treeAt), true)
  view.setBigUint64(40, BigInt(RAM + KERNEL), true)
  const room = Number(new DataView(image.buffer, image.byteOffset).getBigUint64(16, true))
  const elf = executable([
    { at: STUB, bytes: stub },
    { at: KERNEL, bytes: image, room },
    { at: treeAt, bytes: deviceTree(bootargs, ramMiB) },
  ])
  const places = ['0000:01:00.0', '0000:02:00.0']
  const machine = createMachine({
    iommu: 'smmuv3',
    cpu: 'arm64',
    profile: 'N13',
    nsPerInstruction: 10,
    ramBytes: (ramMiB + 64) * MIB,
    devices: places.map(at => ({ at, model: svaEngine })),
    stalling: [places[1]!],
  })
  machine.trace.listen('guest.console', e => tell(e.line))
  machine.trace.listen('vmm.table', e => {
    const what = e.config === 'translate' ? `2^${e.contextBits} contexts` : e.config
    tell(`   stream ${e.stream}: ${what}${e.refused ? `, refused: ${e.refused}` : ''}`)
  })
  machine.trace.listen('vmm.smmu-event', e => tell(`   stream ${e.stream}: ${e.event}`))
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const vmm = new Arm64Vmm({
    sys,
    trace: machine.trace,
    ramBytes: ramMiB * MIB,
    image: elf,
    devices: places.map((device, i) => ({
      device,
      group: machine.groupOf(device),
      stalling: i === 1,
    })),
  })
  const { kind } = vmm.run()
  vmm.close()
  sys.exit()
  machine.settle()
  return kind === 'shutdown' ? 'off' : kind
}

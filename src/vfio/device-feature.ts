// VFIO_DEVICE_FEATURE: the checks every feature shares, and the features a profile knows. VF tokens need a
// physical function with SR-IOV, which no model has. uapi linux/vfio.h, vfio_device_feature.
import { hex } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { PciConfig } from '../iommu/pci-config.js'
import { PCI_COMMAND, PCI_COMMAND_MASTER } from '../pci/ids.js'
import type { Process } from '../sys/process.js'
import type { Rules } from './profiles.js'
import {
  VFIO_DEVICE_FEATURE_BUS_MASTER,
  VFIO_DEVICE_FEATURE_CLEAR_MASTER,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  VFIO_DEVICE_FEATURE_SET_MASTER,
  vfio_device_feature,
} from './uapi/vfio.js'

const CALL = 'VFIO_DEVICE_FEATURE'
const HEADER = vfio_device_feature.size
const KNOWN =
  VFIO_DEVICE_FEATURE_MASK |
  VFIO_DEVICE_FEATURE_GET |
  VFIO_DEVICE_FEATURE_SET |
  VFIO_DEVICE_FEATURE_PROBE

const invalid = (what: string) => new ErrnoError('EINVAL', `${CALL}: ${what}`)

/** Answers FEATURE at `arg` of the caller. */
export function deviceFeature(
  rules: Rules,
  config: PciConfig,
  bdf: number,
  arg: number,
  { memory }: Process,
): number {
  const bytes = new Uint8Array(HEADER)
  if (!memory.copyIn(arg, bytes)) throw new ErrnoError('EFAULT', `${CALL}: unreadable`)
  const { argsz, flags } = vfio_device_feature.at(bytes)
  const get = (flags & VFIO_DEVICE_FEATURE_GET) !== 0
  const set = (flags & VFIO_DEVICE_FEATURE_SET) !== 0
  const probe = (flags & VFIO_DEVICE_FEATURE_PROBE) !== 0
  if (argsz < HEADER) throw invalid(`argsz ${argsz} < ${HEADER}`)
  if (flags & ~KNOWN) throw invalid(`flags ${hex(flags)}`)
  if (get && set && !probe) throw invalid('GET and SET together')
  const feature = flags & VFIO_DEVICE_FEATURE_MASK
  const offered = rules.features.includes(feature) && feature === VFIO_DEVICE_FEATURE_BUS_MASTER
  if (!offered) throw new ErrnoError('ENOTTY', `${CALL}: feature ${feature}`)
  if (get || !(set || probe)) throw invalid(`feature ${feature} can be set only`)
  if (probe) return 0
  const op = new Uint8Array(4)
  if (argsz < HEADER + op.length) throw invalid(`argsz ${argsz} < ${HEADER + op.length}`)
  if (!memory.copyIn(arg + HEADER, op)) throw new ErrnoError('EFAULT', `${CALL}: unreadable`)
  const command = config.read(bdf, PCI_COMMAND, 2)
  switch (new DataView(op.buffer).getUint32(0, true)) {
    case VFIO_DEVICE_FEATURE_CLEAR_MASTER:
      config.write(bdf, PCI_COMMAND, 2, command & ~PCI_COMMAND_MASTER)
      return 0
    case VFIO_DEVICE_FEATURE_SET_MASTER:
      config.write(bdf, PCI_COMMAND, 2, command | PCI_COMMAND_MASTER)
      return 0
    default:
      throw invalid('bus master operation')
  }
}

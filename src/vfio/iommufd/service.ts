// iommufd of one machine: registers /dev/iommu, keeps what all iommufds share, and tells VFIO which files are
// iommufds. Next: dispatch.ts (the file), device.ts (what VFIO binds), compat.ts (in a container's place).
import type { TraceBus } from '../../base/trace.js'
import type { IommuCore } from '../../iommu/core.js'
import type { Kernel } from '../../sys/kernel.js'
import type { OpenFile } from '../../sys/open-file.js'
import { CompatContainer } from './compat.js'
import type { IommufdContext, IommufdEnvironment } from './context.js'
import { BoundGroups } from './device.js'
import { IommufdFile } from './dispatch.js'
import { Ioas } from './ioas.js'
import { UserAccount } from './pages.js'

/** What iommufd is made of. */
export interface IommufdOptions {
  readonly kernel: Kernel
  readonly core: IommuCore
  readonly trace: TraceBus
  readonly allowUnsafeInterrupts: boolean
  /** Whether no driver that does DMA has a device of a group. */
  viable(group: number): boolean
}

/** What users of iommufd hold; all zero once everything is closed. */
export interface IommufdHoldings {
  readonly iommufds: number
  readonly objects: number
  /** Mapped areas. */
  readonly areas: number
  /** Pages on the user's account. */
  readonly lockedPages: number
}

/** iommufd of one machine. */
export class Iommufd {
  /** Groups whose DMA an iommufd owns. */
  readonly groups = new BoundGroups()
  readonly #env: IommufdEnvironment

  constructor({ kernel, core, trace, allowUnsafeInterrupts, viable }: IommufdOptions) {
    this.#env = {
      core,
      allowUnsafeInterrupts,
      viable,
      account: new UserAccount(),
      contexts: new Set(),
      failures: kernel.failures,
      ioctls: trace.point('iommufd.ioctl'),
    }
    kernel.nodes.register('/dev/iommu', () => new IommufdFile(this.#env))
  }

  /** The iommufd behind a file; undefined when it is another kind of file. */
  contextOf(file: OpenFile): IommufdContext | undefined {
    return file instanceof IommufdFile ? file.context : undefined
  }

  /** The iommufd behind a file, as a group's container. */
  containerOf(file: OpenFile): CompatContainer | undefined {
    const context = this.contextOf(file)
    return context && new CompatContainer(context, this.groups)
  }

  holdings(): IommufdHoldings {
    const { contexts, account } = this.#env
    let objects = 0
    let areas = 0
    for (const context of contexts) {
      objects += context.objects.size
      for (const o of context.objects.all()) if (o instanceof Ioas) areas += o.table.areas.size
    }
    return { iommufds: contexts.size, objects, areas, lockedPages: account.lockedPages }
  }
}

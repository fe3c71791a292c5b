// A driver of the IOMMU that stands in front of the real one, so that a test can change what its domains do:
// refuse a call, report other nesting info, serve only some functions.
import type { Domain, FaultSink, IommuDriver } from '../iommu/domain.js'

/** A driver that stands in front of another, with each of its domains changed as it is made. */
export function standIn(
  driver: IommuDriver,
  change: (domain: Domain) => void = () => {},
): IommuDriver {
  return new Proxy(driver, {
    get(target, name) {
      const value = Reflect.get(target, name, target) as unknown
      if (typeof value !== 'function') return value
      // Several stand-ins for one driver: it covers what each of them does.
      if (name === 'connect') return (sink: FaultSink) => target.connect(sink, () => true)
      if (name !== 'domainAlloc') return value.bind(target)
      return (options: { nesting: boolean }) => {
        const domain = target.domainAlloc(options)
        change(domain)
        return domain
      }
    },
  })
}

// VT-d with its driver as a subject of the conformance suites.
import { describe } from 'vitest'
import { runConformance } from './iommu.js'
import { vtd } from './subject.js'

describe('VT-d', () => runConformance({ create: options => vtd(options) }))

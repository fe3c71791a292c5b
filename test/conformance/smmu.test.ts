// SMMUv3 with its driver as a subject of the conformance suites: with two stages, and with stage 1 only.
import { describe } from 'vitest'
import { runConformance } from './iommu.js'
import { runRequester } from './requester.js'
import { smmu } from './subject.js'

describe('SMMUv3', () => runConformance({ create: options => smmu(options) }))

describe('SMMUv3 without stage 2', () =>
  runConformance({
    create: options => smmu(options, { stage2: false }),
    nests: false,
    except: {
      'a page that can only be written is not read': {
        reason: 'stage 1 permissions have no write without read',
        section: 'Arm ARM D8.4.1',
      },
    },
  }))

describe('requesters below SMMUv3', () => runRequester(smmu))

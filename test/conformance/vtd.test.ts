// VT-d with its driver as a subject of the conformance suites.
import { describe } from 'vitest'
import { runConformance } from './iommu.js'
import { runRequester } from './requester.js'
import { vtd } from './subject.js'

describe('VT-d', () => runConformance({ create: options => vtd(options) }))

describe('requesters below VT-d', () => runRequester(vtd))

// Which edge cases of the documented list mean something on a host with an SMMUv3, and why the others do not.
// coverage.test.ts compares the first table with the names in smmuv3.test.ts. A range is `E22-E60`.

/** Cases with a test there, and what is asked. */
// biome-ignore format: table
export const SMMUV3_CASES: readonly (readonly [ids: string, how: string])[] = [
  ['E01-E06',             'the container before and without a nesting driver: the same'],
  ['E07 E08',             'V7R refuses the first group (E11); N13 has no rule of one group'],
  ['E09 E10',             'software mdevs have no IOMMU: the same'],
  ['E11 E12',             'the cases that are about such a host'],
  ['E15-E18',             'GET_INFO of N13, whose chain has no NESTING'],
  ['E53 E57',             'the guest takes a context descriptor away in place of FREE'],
  ['E61 E62',             'SET_PASID_TABLE in place of BIND: one table, a second one is EINVAL'],
  ['E69-E73 E75 E81-E83', 'members of the table configuration in place of the bind data'],
  ['E85-E90 E94',         'the outer structure of SET_PASID_TABLE'],
  ['E98-E101 E162 E167',  'the life of the table in place of that of a binding'],
  ['E103-E111',           'CACHE_INVALIDATE, whose errors are told and whose DOMAIN is carried out'],
  ['E114-E116 E158 E160', 'the same'],
  ['E134 E135',           'the file is of the profile, not of the IOMMU'],
  ['E136-E139',           'configuration space is of the profile, not of the IOMMU'],
  ['E156 E163-E166 E168', 'the container, its files and its answers'],
]

/** Cases without one, and why. */
// biome-ignore format: table
export const NOT_SMMUV3: readonly (readonly [ids: string, why: string])[] = [
  ['E13 E14',             'they compare CAP and ECAP of two VT-d units'],
  ['E19 E20',             'members of the NESTING capability, which no profile emits there'],
  ['E21',                 'PASID bits of nesting info that has a format; there it has none (E11)'],
  ['E22-E52',             'PASID allocation and free: no profile nests and allocates there, PASIDs are the guest\'s (R28)'],
  ['E54-E56 E58-E60',     'PASID free: as above'],
  ['E63-E68',             'whose a PASID is, and its range: the guest\'s own business (R28)'],
  ['E74 E76-E80',         'flags and widths of VT-d\'s bind data; a context descriptor\'s are the unit\'s to refuse'],
  ['E84',                 'a bind by PASID on a device that is not PCI'],
  ['E91 E92',             'guest PASIDs that differ from the host\'s: there is one name only'],
  ['E93',                 'a bind undone device by device: the driver takes the table for the whole domain'],
  ['E95-E97',             'UNBIND and its payload: UNSET reads none'],
  ['E102',                'auxiliary domains are not modelled there'],
  ['E112 E113',           'whether a PASID is bound, and whose it is: no such state (R28)'],
  ['E117-E125 E132 E133', 'the allocator of PASIDs, below every IOMMU'],
  ['E126-E131',           'PASIDs announced to KVM and the translation of ENQCMD: of hosts that hand out PASIDs'],
  ['E140-E155',           'iommufd over an SMMUv3 is not modelled'],
  ['E157 E161 E169 E170', 'PASID allocation and free: as above'],
  ['E159',                'the PASID of UNBIND: UNSET has none'],
]

/** The ids of rows. */
export function idsOf(rows: readonly (readonly [ids: string, text: string])[]): string[] {
  return rows.flatMap(([ids]) =>
    ids.split(' ').flatMap(word => {
      const [first, last = first] = word.split('-').map(id => Number(id.slice(1)))
      return Array.from({ length: last! - first! + 1 }, (_, i) => idOf(first! + i))
    }),
  )
}

/** The id of a number: at least two digits. */
export const idOf = (n: number): string => `E${String(n).padStart(2, '0')}`

/**
 * Type 0 and type 1 configuration headers as banks. I/O space, expansion ROM and BIST are not
 * modelled: those registers read as zero and ignore writes.
 * Next: bar.ts (what the Base Address Registers decode), node.ts (which behaviour hangs on Command).
 */
import { bank, bits, flag, r8, r16, r32 } from '../base/fields.js'

const common = {
  Vendor_ID: r16(0x00, 'PCIe 7.5.1.1.1', { ID: bits(15, 0, 'ro', 'assigned by PCI-SIG') }),
  Device_ID: r16(0x02, 'PCIe 7.5.1.1.2', { ID: bits(15, 0, 'ro', 'assigned by the vendor') }),
  Command: r16(0x04, 'PCIe 7.5.1.1.3', {
    Interrupt_Disable: flag(10, 'rw', 'the interrupt pin is not asserted'),
    SERR_Enable: flag(8, 'rw', 'report errors upstream'),
    Parity_Error_Response: flag(6, 'rw', 'log poisoned requests'),
    Bus_Master_Enable: flag(2, 'rw', 'issue memory requests; a bridge: forward them upstream'),
    Memory_Space_Enable: flag(1, 'rw', 'answer memory requests; a bridge: forward its windows'),
    IO_Space_Enable: flag(0, 'ro', 'no I/O space'),
  }),
  Status: r16(
    0x06,
    'PCIe 7.5.1.1.4',
    {
      Detected_Parity_Error: flag(15, 'rw1c', 'a poisoned request came'),
      Signaled_System_Error: flag(14, 'rw1c', 'an error message was sent'),
      Received_Master_Abort: flag(13, 'rw1c', 'a completion with UR came back'),
      Received_Target_Abort: flag(12, 'rw1c', 'a completion with CA came back'),
      Signaled_Target_Abort: flag(11, 'rw1c', 'a request was completed with CA'),
      Master_Data_Parity_Error: flag(8, 'rw1c', 'a poisoned completion came'),
      Capabilities_List: flag(4, 'ro', 'Capabilities_Pointer is valid'),
      Interrupt_Status: flag(3, 'ro', 'an INTx interrupt is pending'),
    },
    0x10n,
  ),
  Revision_ID: r8(0x08, 'PCIe 7.5.1.1.5', { ID: bits(7, 0, 'ro', 'revision') }),
  Programming_Interface: r8(0x09, 'PCIe 7.5.1.1.6', { CODE: bits(7, 0, 'ro', 'class 7:0') }),
  Sub_Class: r8(0x0a, 'PCIe 7.5.1.1.6', { CODE: bits(7, 0, 'ro', 'class 15:8') }),
  Base_Class: r8(0x0b, 'PCIe 7.5.1.1.6', { CODE: bits(7, 0, 'ro', 'class 23:16') }),
  Cache_Line_Size: r8(0x0c, 'PCIe 7.5.1.1.7', { SIZE: bits(7, 0, 'rw', 'no effect in PCIe') }),
  Header_Type: r8(0x0e, 'PCIe 7.5.1.1.9', {
    Multi_Function: flag(7, 'ro', 'functions 1 to 7 may exist'),
    Layout: bits(6, 0, 'ro', '0 endpoint, 1 bridge'),
  }),
  BAR0: r32(0x10, 'PCIe 7.5.1.2.1', { VALUE: bits(31, 0, 'rw', 'masked to the BAR size') }),
  BAR1: r32(0x14, 'PCIe 7.5.1.2.1', { VALUE: bits(31, 0, 'rw', 'masked to the BAR size') }),
  Capabilities_Pointer: r8(0x34, 'PCIe 7.5.1.1.11', { OFFSET: bits(7, 0, 'ro', 'first one') }),
  Interrupt_Line: r8(0x3c, 'PCIe 7.5.1.1.12', { LINE: bits(7, 0, 'rw', 'scratch for software') }),
  Interrupt_Pin: r8(0x3d, 'PCIe 7.5.1.1.13', {
    PIN: bits(7, 0, 'ro', '0 none, 1 to 4 INTA to INTD'),
  }),
}

/** Configuration header of an endpoint, PCIe 7.5.1.2. */
export const TYPE0 = bank(
  'type 0 header',
  {
    ...common,
    BAR2: r32(0x18, 'PCIe 7.5.1.2.1', { VALUE: bits(31, 0, 'rw', 'masked to the BAR size') }),
    BAR3: r32(0x1c, 'PCIe 7.5.1.2.1', { VALUE: bits(31, 0, 'rw', 'masked to the BAR size') }),
    BAR4: r32(0x20, 'PCIe 7.5.1.2.1', { VALUE: bits(31, 0, 'rw', 'masked to the BAR size') }),
    BAR5: r32(0x24, 'PCIe 7.5.1.2.1', { VALUE: bits(31, 0, 'rw', 'masked to the BAR size') }),
    Subsystem_Vendor_ID: r16(0x2c, 'PCIe 7.5.1.2.3', { ID: bits(15, 0, 'ro', 'of the board') }),
    Subsystem_ID: r16(0x2e, 'PCIe 7.5.1.2.3', { ID: bits(15, 0, 'ro', 'of the board') }),
  },
  0x40,
)

/** Configuration header of a bridge, PCIe 7.5.1.3. */
export const TYPE1 = bank(
  'type 1 header',
  {
    ...common,
    Primary_Bus: r8(0x18, 'PCIe 7.5.1.3.2', { NUMBER: bits(7, 0, 'rw', 'bus above') }),
    Secondary_Bus: r8(0x19, 'PCIe 7.5.1.3.3', { NUMBER: bits(7, 0, 'rw', 'bus just below') }),
    Subordinate_Bus: r8(0x1a, 'PCIe 7.5.1.3.4', { NUMBER: bits(7, 0, 'rw', 'highest below') }),
    Secondary_Status: r16(0x1e, 'PCIe 7.5.1.3.7', {
      Received_Master_Abort: flag(13, 'rw1c', 'UR came from below'),
      Received_Target_Abort: flag(12, 'rw1c', 'CA came from below'),
    }),
    Memory_Base: r16(0x20, 'PCIe 7.5.1.3.8', { BASE: bits(15, 4, 'rw', 'address 31:20') }),
    Memory_Limit: r16(0x22, 'PCIe 7.5.1.3.8', { LIMIT: bits(15, 4, 'rw', 'address 31:20, last') }),
    Prefetchable_Memory_Base: r16(
      0x24,
      'PCIe 7.5.1.3.9',
      { BASE: bits(15, 4, 'rw', 'address 31:20'), TYPE: bits(3, 0, 'ro', '1: 64-bit') },
      1n,
    ),
    Prefetchable_Memory_Limit: r16(
      0x26,
      'PCIe 7.5.1.3.9',
      { LIMIT: bits(15, 4, 'rw', 'address 31:20, last'), TYPE: bits(3, 0, 'ro', '1: 64-bit') },
      1n,
    ),
    Prefetchable_Base_Upper: r32(0x28, 'PCIe 7.5.1.3.10', {
      BASE: bits(31, 0, 'rw', 'address 63:32'),
    }),
    Prefetchable_Limit_Upper: r32(0x2c, 'PCIe 7.5.1.3.10', {
      LIMIT: bits(31, 0, 'rw', 'address 63:32, last'),
    }),
    Bridge_Control: r16(0x3e, 'PCIe 7.5.1.3.13', {
      Secondary_Bus_Reset: flag(6, 'rw', 'hot reset of everything below while set'),
      SERR_Enable: flag(1, 'rw', 'forward errors from below'),
      Parity_Error_Response: flag(0, 'rw', 'log poisoned requests from below'),
    }),
  },
  0x40,
)

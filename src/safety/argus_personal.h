// Tier 2: personal data that can be proven or nearly so. Card numbers by Luhn's checksum and the ranges of issuers, IBAN by country, length and ISO 7064 mod 97,
// US social security numbers by the ranges that were issued, e-mail addresses, telephone numbers (E.164, North America; others beside a word that says so),
// passport and tax numbers only beside their names.
#pragma once

#include "safety/argus_detect.h"

namespace hearth::safety::argus {

void find_personal(std::string_view text, Hits& hits);

// Luhn's checksum over ASCII digits.
bool luhn(std::string_view digits);
// Letters and digits without blanks, in any case: country, length and checksum.
bool is_iban(std::string_view text);

}  // namespace hearth::safety::argus

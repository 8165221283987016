#include "safety/argus_personal.h"

#include <array>

namespace hearth::safety::argus {
namespace {

struct IbanLength {
  char country[3];
  std::uint8_t length;
};
// ISO 13616 registry: total lengths.
constexpr IbanLength iban_lengths[] = {
    {"AD", 24}, {"AE", 23}, {"AL", 28}, {"AT", 20}, {"AZ", 28}, {"BA", 20}, {"BE", 16}, {"BG", 22}, {"BH", 22}, {"BI", 27}, {"BR", 29},
    {"BY", 28}, {"CH", 21}, {"CR", 22}, {"CY", 28}, {"CZ", 24}, {"DE", 22}, {"DJ", 27}, {"DK", 18}, {"DO", 28}, {"EE", 20}, {"EG", 29},
    {"ES", 24}, {"FI", 18}, {"FK", 18}, {"FO", 18}, {"FR", 27}, {"GB", 22}, {"GE", 22}, {"GI", 23}, {"GL", 18}, {"GR", 27}, {"GT", 28},
    {"HR", 21}, {"HU", 28}, {"IE", 22}, {"IL", 23}, {"IQ", 23}, {"IS", 26}, {"IT", 27}, {"JO", 30}, {"KW", 30}, {"KZ", 20}, {"LB", 28},
    {"LC", 32}, {"LI", 21}, {"LT", 20}, {"LU", 20}, {"LV", 21}, {"LY", 25}, {"MC", 27}, {"MD", 24}, {"ME", 22}, {"MK", 19}, {"MN", 20},
    {"MR", 27}, {"MT", 31}, {"MU", 30}, {"NI", 28}, {"NL", 18}, {"NO", 15}, {"OM", 23}, {"PK", 24}, {"PL", 28}, {"PS", 29}, {"PT", 25},
    {"QA", 29}, {"RO", 24}, {"RS", 22}, {"RU", 33}, {"SA", 24}, {"SC", 31}, {"SD", 18}, {"SE", 24}, {"SI", 19}, {"SK", 24}, {"SM", 27},
    {"SO", 23}, {"ST", 25}, {"SV", 28}, {"TL", 23}, {"TN", 24}, {"TR", 26}, {"UA", 29}, {"VA", 22}, {"VG", 24}, {"XK", 20}};

// Whether the digits are of an issuer's range and of a length it uses.
bool is_card_range(std::string_view digits) {
  const std::size_t n = digits.size();
  const auto prefix = [&](std::size_t length) {
    int value = 0;
    for (std::size_t i = 0; i < length; ++i) value = value * 10 + (digits[i] - '0');
    return value;
  };
  const int two = prefix(2), three = prefix(3), four = prefix(4), six = prefix(6);
  if (digits[0] == '4') return n == 13 || n == 16 || n == 19;
  if ((two >= 51 && two <= 55) || (four >= 2221 && four <= 2720)) return n == 16;
  if (two == 34 || two == 37) return n == 15;
  if ((three >= 300 && three <= 305) || two == 36 || two == 38 || two == 39) return n == 14 || n == 16;
  if (four == 6011 || two == 65 || (three >= 644 && three <= 649) || (six >= 622126 && six <= 622925)) return n >= 16 && n <= 19;
  if ((four >= 3528 && four <= 3589)) return n >= 16 && n <= 19;
  if (four == 2131 || four == 1800) return n == 15;
  if (four >= 2200 && four <= 2204) return n >= 16 && n <= 19;
  if (two == 62) return n >= 16 && n <= 19;
  if (four == 5018 || four == 5020 || four == 5038 || four == 5893 || four == 6304 || four == 6759 || (four >= 6761 && four <= 6763))
    return n >= 12 && n <= 19;
  return false;
}

bool near_word(std::string_view text, std::size_t at, std::size_t before, std::initializer_list<std::string_view> words) {
  const std::string_view near = around(text, at, before, 0);
  for (const auto word : words) {
    for (std::size_t i = near.size(); i-- > 0;) {
      if (has_at(near, i, word) && (i == 0 || !is_letter(near[i - 1])) &&
          (i + word.size() >= near.size() || !is_letter(near[i + word.size()]) || near[i + word.size()] == 's'))
        return true;
    }
  }
  return false;
}

void report(Hits& hits, std::string_view detector, std::size_t begin, std::size_t end, double confidence) {
  hits.push_back({.kind = Spill::personal,
                  .detector = std::string(detector),
                  .span = {begin, end},
                  .reach = {begin, end},
                  .level = {},
                  .confidence = confidence});
}

// One number as people write it: groups of digits with single separators between. `begin` is at a digit, '+' or '('.
struct Number {
  std::size_t begin = 0, end = 0;
  std::array<std::uint8_t, 12> groups{};  // digits of each
  std::size_t group_count = 0;
  std::string digits;
  char separator = 0;  // the one used throughout; '?' when they differ
  bool plus = false, parenthesis = false;
};

Number read_number(std::string_view text, std::size_t at) {
  Number number;
  std::size_t i = at;
  number.begin = at;
  if (text[i] == '+') number.plus = true, ++i;
  if (i < text.size() && text[i] == '(') number.parenthesis = true, ++i;
  while (i < text.size() && number.group_count < number.groups.size()) {
    const std::size_t begin = i;
    while (i < text.size() && is_digit(text[i]) && i - begin < 40) number.digits += text[i++];
    if (i == begin) break;
    number.groups[number.group_count++] = static_cast<std::uint8_t>(i - begin);
    number.end = i;
    // A separator, with a parenthesis perhaps, before another digit.
    std::size_t next = i;
    char separator = 0;
    if (next < text.size() && text[next] == ')') ++next, number.parenthesis = true, separator = ' ';
    if (next < text.size() && (text[next] == ' ' || text[next] == '-' || text[next] == '.')) separator = text[next++];
    if (number.plus && next < text.size() && text[next] == '(') ++next, number.parenthesis = true;
    if (separator == 0 || next >= text.size() || !is_digit(text[next])) break;
    if (number.separator != 0 && number.separator != separator && number.digits.size() >= 12) break;  // something else follows
    if (number.separator == 0) {
      number.separator = separator;
    } else if (number.separator != separator) {
      number.separator = '?';
    }
    i = next;
  }
  return number;
}

// The part of the number up to `groups` groups, as digits and an end in the text.
std::size_t end_of_groups(std::string_view text, const Number& number, std::size_t groups) {
  std::size_t digits = 0;
  for (std::size_t i = 0; i < groups; ++i) digits += number.groups[i];
  std::size_t at = number.begin;
  for (std::size_t seen = 0; seen < digits; ++at) seen += is_digit(text[at]) ? 1 : 0;
  return at;
}

// In a table of four-digit numbers, hexadecimal perhaps: groups of four stand before or behind, too, the line's break between.
bool in_table(std::string_view text, std::size_t begin, std::size_t end) {
  const auto group = [&](std::size_t at) {
    for (std::size_t i = 0; i < 4; ++i) {
      if (at + i >= text.size() || !(is_digit(text[at + i]) || (to_lower(text[at + i]) >= 'a' && to_lower(text[at + i]) <= 'f')))
        return false;
    }
    return at + 4 >= text.size() || !is_alnum(text[at + 4]);
  };
  return (end < text.size() && is_space(text[end]) && group(end + 1)) || (begin >= 5 && is_space(text[begin - 1]) && group(begin - 5));
}

bool look_for_card(std::string_view text, const Number& number, Hits& hits) {
  if (number.plus || number.parenthesis || number.separator == '?' || number.separator == '.') return false;
  // All of it, or its first groups ("4111 1111 1111 1111 123" with a code behind).
  for (std::size_t groups = number.group_count; groups > 0; --groups) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < groups; ++i) count += number.groups[i];
    if (count < 12) return false;
    if (count > 19) continue;
    if (groups > 1 && (groups < 3 || number.groups[0] != 4 || number.groups[groups - 1] > 7)) continue;
    const std::string_view digits = std::string_view(number.digits).substr(0, count);
    if (!is_card_range(digits) || !luhn(digits)) continue;
    if (digits.find_first_not_of(digits[0]) == std::string_view::npos) continue;
    if (groups > 1 && groups < number.group_count && number.groups[groups] >= 4) continue;  // a longer list of numbers
    const std::size_t stop = end_of_groups(text, number, groups);
    const bool listed = groups > 1 && (number.begin > 1 && is_alnum(text[number.begin - 2]) &&
                                       text[number.begin - 1] == text[stop - number.groups[groups - 1] - 1]);
    const bool named = near_word(text, number.begin, 80, {"card", "visa", "mastercard", "amex", "credit", "debit", "payment", "cc", "pan"});
    if (!named && ((count < 14 && groups == 1) || (listed && !is_letter(text[number.begin - 2])) ||
                   (groups > 1 && in_table(text, number.begin, stop))))
      continue;
    report(hits, "card_number", number.begin, stop, named || groups > 1 ? 0.95 : 0.7);
    return true;
  }
  return false;
}

bool is_issued_ssn(std::string_view digits) {
  const int area = (digits[0] - '0') * 100 + (digits[1] - '0') * 10 + (digits[2] - '0');
  if (area == 0 || area == 666 || area >= 900) return false;
  if (digits.substr(3, 2) == "00" || digits.substr(5) == "0000") return false;
  return digits != "078051120" && digits != "219099999" && digits != "123456789" && digits != "111111111" && digits != "333333333";
}

bool look_for_ssn(std::string_view text, const Number& number, Hits& hits) {
  if (number.plus || number.parenthesis || number.digits.size() != 9 || !is_issued_ssn(number.digits)) return false;
  const bool shaped = number.group_count == 3 && number.groups[0] == 3 && number.groups[1] == 2 && number.groups[2] == 4;
  const bool named = near_word(text, number.begin, 60, {"ssn", "social security", "social-security", "soc sec", "ss#"});
  if (!(shaped && (number.separator == '-' || named)) && !(number.group_count == 1 && named)) return false;
  report(hits, "us_ssn", number.begin, number.end, named ? 0.95 : 0.75);
  return true;
}

bool look_for_phone(std::string_view text, const Number& number, Hits& hits) {
  const std::size_t n = number.digits.size();
  const std::string_view digits = number.digits;
  if (n < 7 || n > 15) return false;
  if (digits.find_first_not_of(digits[0]) == std::string_view::npos ||
      std::string_view("12345678901234567890").find(digits) != std::string_view::npos)
    return false;
  std::size_t end = number.end;
  // An extension: "x4587", "ext. 12".
  for (const std::string_view mark : {"x", " x", " ext. ", " ext "}) {
    if (!has_at(text, end, mark)) continue;
    std::size_t i = end + mark.size();
    while (i < text.size() && is_digit(text[i]) && i - end < 12) ++i;
    if (i > end + mark.size()) {
      end = i;
      break;
    }
  }
  const bool named = near_word(text, number.begin, 60,
                               {"phone", "tel", "telephone", "mobile", "cell", "call", "fax", "whatsapp", "dial", "contact", "sms",
                                "text me", "number is", "reach me", "hotline", "landline"});
  if (number.plus) {
    if (n < 8 || digits[0] == '0' || (number.group_count == 1 && n < 10 && !named)) return false;
    report(hits, "phone_number", number.begin, end, named || number.group_count > 2 ? 0.9 : 0.7);
    return true;
  }
  // North America: three, three, four; neither the area nor the exchange begins with 0 or 1.
  const auto shaped = [&](std::size_t skip) {
    return number.group_count == 3 + skip && number.groups[skip] == 3 && number.groups[skip + 1] == 3 && number.groups[skip + 2] == 4 &&
           digits[skip] >= '2' && digits[skip + 3] >= '2' && (skip == 0 || (number.groups[0] == 1 && digits[0] == '1'));
  };
  if (shaped(0) || shaped(1)) {
    const bool fiction = digits.substr(n - 7, 3) == "555" && digits.substr(n - 4, 2) == "01";
    if (!fiction || named) {
      // Dots also separate versions and addresses; blanks anything.
      const double confidence = named ? 0.9 : number.separator == '-' || number.parenthesis ? 0.75 : number.separator == '.' ? 0.6 : 0.5;
      if (confidence > 0.55) {
        report(hits, "phone_number", number.begin, end, confidence);
        return true;
      }
    }
  }
  if (!named) return false;
  // Anything else that has the length of a number, beside a word that says so; a bare number of seven or eight digits would be an amount as well.
  if (number.group_count == 1 && (n < 9 || n > 12)) return false;
  if (number.group_count == 3 && number.groups[0] == 4 && number.groups[1] == 2 && number.groups[2] == 2) return false;  // a date
  if (number.group_count == 2 && number.groups[0] == 4 && number.groups[1] == 4) return false;                           // years
  if (digits.find_first_not_of("01") == std::string_view::npos) return false;
  if (number.end < text.size() && text[number.end] == '=') return false;
  if (number.group_count == 4 && number.separator == '.' && number.groups[0] <= 3 && number.groups[1] <= 3 && number.groups[2] <= 3 &&
      number.groups[3] <= 3)
    return false;
  report(hits, "phone_number", number.begin, end, 0.6);
  return true;
}

bool look_for_iban(std::string_view text, std::size_t digit, Hits& hits) {
  if (digit < 2 || !is_letter(text[digit - 1]) || !is_letter(text[digit - 2]) || (digit > 2 && is_word(text[digit - 3]))) return false;
  const std::size_t begin = digit - 2;
  std::string plain;
  std::size_t i = begin, stop = begin;
  std::size_t expected = 0;
  for (const auto& [country, length] : iban_lengths) {
    if (to_upper(text[begin]) == country[0] && to_upper(text[begin + 1]) == country[1]) expected = length;
  }
  if (expected == 0) return false;
  while (i < text.size() && plain.size() < expected) {
    if (is_alnum(text[i])) {
      plain += text[i++];
      stop = i;
    } else if ((text[i] == ' ' || text[i] == '-') && i + 1 < text.size() && is_alnum(text[i + 1]) && i > begin) {
      ++i;
    } else {
      break;
    }
  }
  if (plain.size() != expected || (stop < text.size() && is_alnum(text[stop])) || !is_iban(plain)) return false;
  report(hits, "iban", begin, stop, 0.98);
  return true;
}

// Numbers that are personal only because a word says so.
bool look_for_named_number(std::string_view text, std::size_t at, Hits& hits) {
  std::size_t begin = at, end = at;
  while (begin > 0 && at - begin < 3 && is_letter(text[begin - 1])) --begin;
  while (end < text.size() && (is_digit(text[end]) || text[end] == '-') && end - at < 14) ++end;
  while (end > at && text[end - 1] == '-') --end;
  if ((begin > 0 && is_word(text[begin - 1])) || (end < text.size() && is_word(text[end]))) return false;
  std::size_t digits = 0;
  for (std::size_t i = at; i < end; ++i) digits += is_digit(text[i]) ? 1 : 0;
  if (digits >= 7 && digits <= 9 && begin + 2 >= at && near_word(text, begin, 30, {"passport"})) {
    report(hits, "passport", begin, end, 0.8);
    return true;
  }
  const std::string_view number = text.substr(at, end - at);
  const bool employer = number.size() == 10 && number[2] == '-' && digits == 9;
  if (begin == at && (employer || digits == 9) && near_word(text, at, 30, {"ein", "tax id", "tax-id", "itin", "tin", "taxpayer"})) {
    report(hits, "tax_id", at, end, 0.8);
    return true;
  }
  return false;
}

bool is_local(char c) { return is_alnum(c) || c == '.' || c == '_' || c == '%' || c == '+' || c == '-'; }

// Endings of files, which stand where a top-level domain would: "icon@2x.png".
bool is_file_ending(std::string_view ending) {
  for (const std::string_view known :
       {"png",      "jpg",       "jpeg", "gif",     "svg",     "webp",        "js",    "ts",     "css",   "json",
        "html",     "md",        "txt",  "py",      "rb",      "rs",          "go",    "c",      "h",     "sh",
        "yml",      "yaml",      "toml", "xml",     "service", "target",      "timer", "socket", "mount", "local",
        "internal", "localhost", "test", "invalid", "example", "localdomain", "lan"}) {
    if (lowered(ending) == known) return true;
  }
  return false;
}

void look_for_email(std::string_view text, std::size_t sign, Hits& hits) {
  std::size_t begin = sign, end = sign + 1;
  while (begin > 0 && sign - begin < 65 && is_local(text[begin - 1])) --begin;
  while (begin < sign && (text[begin] == '.' || text[begin] == '-' || text[begin] == '%')) ++begin;
  while (end < text.size() && end - sign < 255 && (is_alnum(text[end]) || text[end] == '-' || text[end] == '.')) ++end;
  while (end > sign && (text[end - 1] == '.' || text[end - 1] == '-')) --end;
  const std::string_view local = text.substr(begin, sign - begin), domain = text.substr(sign + 1, end - sign - 1);
  const std::size_t dot = domain.rfind('.');
  if (local.empty() || local.size() > 64 || !is_alnum(local.back()) || dot == std::string_view::npos || dot == 0 ||
      domain.find("..") != std::string_view::npos)
    return;
  const std::string_view ending = domain.substr(dot + 1);
  if (ending.size() < 2 || ending.size() > 24 || !std::all_of(ending.begin(), ending.end(), is_letter) || is_file_ending(ending)) return;
  // A user of a URL, an address of git's, or what documentation uses.
  if (begin >= 3 && text.substr(begin - 3, 3) == "://") return;
  if (begin > 0 && (text[begin - 1] == ':' || text[begin - 1] == '/') && contains(around(text, begin, 80, 0), "://")) return;
  if (end < text.size() && text[end] == ':' && end + 1 < text.size() && !is_space(text[end + 1]) &&
      (lowered(local) == "git" || !is_digit(text[end + 1])))
    return;
  const std::string host = lowered(domain), user = lowered(local);
  for (const std::string_view reserved : {"example.com", "example.org", "example.net", "example.edu", "domain.com", "email.com",
                                          "yourdomain.com", "users.noreply.github.com", "test.com", "company.com", "acme.com", "mail.com",
                                          "server.com", "host.com", "hostname.com", "site.com", "website.com", "myserver.com"}) {
    if (host == reserved || host.ends_with("." + std::string(reserved))) return;
  }
  for (const std::string_view role : {"git", "noreply", "no-reply", "donotreply", "user", "username", "you", "your", "me", "root", "name",
                                      "email", "test", "foo", "someone", "nobody"}) {
    if (user == role) return;
  }
  report(hits, "email", begin, end, 0.9);
}

// Whether one of `block` bytes is a digit or '@'; a loop that compilers turn into a few vector instructions.
constexpr std::size_t block = 32;
bool any_of_interest(const char* bytes) {
  unsigned found = 0;
  for (std::size_t i = 0; i < block; ++i) {
    const auto c = static_cast<unsigned char>(bytes[i]);
    found |= static_cast<unsigned>(static_cast<unsigned char>(c - '0') < 10) | static_cast<unsigned>(c == '@');
  }
  return found != 0;
}

}  // namespace

bool luhn(std::string_view digits) {
  int sum = 0;
  bool twice = false;
  for (std::size_t i = digits.size(); i-- > 0; twice = !twice) {
    int value = digits[i] - '0';
    if (twice) value = value * 2 > 9 ? value * 2 - 9 : value * 2;
    sum += value;
  }
  return sum % 10 == 0;
}

bool is_iban(std::string_view text) {
  if (text.size() < 15 || text.size() > 34) return false;
  std::size_t expected = 0;
  for (const auto& [country, length] : iban_lengths) {
    if (to_upper(text[0]) == country[0] && to_upper(text[1]) == country[1]) expected = length;
  }
  if (expected != text.size()) return false;
  int rest = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[(i + 4) % text.size()];
    if (is_digit(c)) {
      rest = (rest * 10 + (c - '0')) % 97;
    } else if (is_letter(c)) {
      rest = (rest * 100 + (to_upper(c) - 'A' + 10)) % 97;
    } else {
      return false;
    }
  }
  return rest == 1;
}

void find_personal(std::string_view text, Hits& hits) {
  static constexpr std::array<std::uint8_t, 256> kinds = [] {
    std::array<std::uint8_t, 256> table{};
    for (int c = '0'; c <= '9'; ++c) table[static_cast<std::size_t>(c)] = 1;
    table['@'] = 2;
    return table;
  }();
  for (std::size_t at = 0; at < text.size(); ++at) {
    const auto kind = kinds[static_cast<unsigned char>(text[at])];
    if (kind == 0) {
      while (at + 1 + block <= text.size() && !any_of_interest(text.data() + at + 1)) at += block;
      continue;
    }
    if (kind == 2) {
      look_for_email(text, at, hits);
      continue;
    }
    // At the first digit of a number.
    if (at + 1 < text.size() && is_digit(text[at + 1]) && look_for_iban(text, at, hits)) {
      at = hits.back().span.end - 1;
      continue;
    }
    std::size_t begin = at;
    if (begin > 0 && text[begin - 1] == '(') --begin;
    if (begin > 0 && text[begin - 1] == '+') --begin;
    const bool inside = begin > 0 && (is_word(text[begin - 1]) ||
                                      ((text[begin - 1] == '.' || text[begin - 1] == '-') && begin > 1 && is_alnum(text[begin - 2])));
    std::size_t run = at;
    while (run < text.size() && is_digit(text[run])) ++run;
    if (inside) {
      look_for_named_number(text, at, hits);
      at = run - 1;
      continue;
    }
    const Number number = read_number(text, begin);
    const bool cut = number.end < text.size() && (is_letter(text[number.end]) || text[number.end] == '_') &&
                     !(to_lower(text[number.end]) == 'x' && number.group_count > 1);
    if (number.digits.size() >= 7 && !cut &&
        (look_for_card(text, number, hits) || look_for_ssn(text, number, hits) || look_for_named_number(text, at, hits) ||
         look_for_phone(text, number, hits))) {
      at = std::max(hits.back().span.end, at + 1) - 1;
      continue;
    }
    // The next group may begin a number of its own.
    at = run - 1;
  }
}

}  // namespace hearth::safety::argus

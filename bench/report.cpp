#include "report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace hearth::bench {

namespace {

std::string number(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

std::string with_range(const std::vector<double>& values, int decimals) {
  if (values.empty()) return "–";
  if (values.size() == 1) return number(values[0], decimals);
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return number(median(values), decimals) + " (" + number(*low, decimals) + "–" + number(*high, decimals) + ")";
}

std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string array(const std::vector<double>& values) {
  std::string out = "[";
  for (const double value : values) out += (out.size() > 1 ? "," : "") + number(value, 4);
  return out + "]";
}

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

void Measurement::add(const std::string& target, double value) {
  for (auto& [name_of, values] : rounds) {
    if (name_of == target) return values.push_back(value);
  }
  rounds.emplace_back(target, std::vector<double>{value});
}

std::vector<double> Measurement::comparison_with(const std::string& other) const {
  const std::vector<double>*of = nullptr, *against = nullptr;
  for (const auto& [target, values] : rounds) {
    if (target == subject) of = &values;
    if (target == other) against = &values;
  }
  std::vector<double> out;
  if (!of || !against || compare == Compare::none) return out;
  for (std::size_t i = 0; i < std::min(of->size(), against->size()); ++i) {
    if (compare == Compare::ratio && std::min((*of)[i], (*against)[i]) <= 0) continue;
    out.push_back(compare == Compare::ratio ? (*of)[i] / (*against)[i] : (*of)[i] - (*against)[i]);
  }
  return out;
}

std::string Report::markdown() const {
  std::vector<std::string> targets;
  for (const Measurement& m : measurements) {
    for (const auto& [target, values] : m.rounds) {
      if (std::find(targets.begin(), targets.end(), target) == targets.end()) targets.push_back(target);
    }
  }
  std::string out = "Command: `" + command + "`\n\nMachine: " + machine + "\n\n";
  for (const std::string& note : notes) out += "- " + note + "\n";
  if (!notes.empty()) out += "\n";
  out += "| measurement | unit |";
  for (const std::string& target : targets) out += " " + target + " |";
  out += " result | goal |\n| --- | --- |";
  for (std::size_t i = 0; i < targets.size(); ++i) out += " ---: |";
  out += " ---: | --- |\n";
  for (const Measurement& m : measurements) {
    out += "| " + m.name + " | " + m.unit + " |";
    for (const std::string& target : targets) {
      const auto found = std::find_if(m.rounds.begin(), m.rounds.end(), [&](const auto& entry) { return entry.first == target; });
      out += " " + (found == m.rounds.end() ? "–" : with_range(found->second, m.decimals)) + " |";
    }
    const bool ratio = m.compare == Measurement::Compare::ratio;
    const int decimals = ratio ? 2 : m.decimals;
    std::string result;
    const auto compare = [&](const std::string& base) {
      const std::vector<double> compared = m.comparison_with(base);
      if (compared.empty()) return;
      // A peer that is a hundred times slower still differs from one that is fifty times slower.
      const int digits = ratio && median(compared) < 0.1 ? 4 : decimals;
      result += (result.empty() ? "" : "; ") + m.subject + (ratio ? " ÷ " : " − ") + base + ": **" + with_range(compared, digits) + "**";
    };
    compare(m.base);
    for (const std::string& base : m.further_bases) compare(base);
    out += result.empty() ? " |" : " " + result + " |";
    if (const std::vector<double> compared = m.comparison(); !compared.empty() && !std::isnan(m.goal)) {
      const bool met = m.at_least ? median(compared) >= m.goal : median(compared) <= m.goal;
      out += std::string(m.at_least ? " ≥ " : " ≤ ") + number(m.goal, decimals) + (met ? ", met" : ", **not met**");
    }
    out += " |\n";
  }
  return out;
}

std::string Report::json() const {
  std::string out =
      "{\"title\":" + json_text(title) + ",\"command\":" + json_text(command) + ",\"machine\":" + json_text(machine) + ",\"notes\":[";
  for (std::size_t i = 0; i < notes.size(); ++i) out += (i ? "," : "") + json_text(notes[i]);
  out += "],\"measurements\":[";
  for (std::size_t i = 0; i < measurements.size(); ++i) {
    const Measurement& m = measurements[i];
    out += std::string(i ? "," : "") + "\n{\"name\":" + json_text(m.name) + ",\"unit\":" + json_text(m.unit) + ",\"rounds\":{";
    for (std::size_t j = 0; j < m.rounds.size(); ++j)
      out += (j ? "," : "") + json_text(m.rounds[j].first) + ":" + array(m.rounds[j].second);
    out += "}";
    if (const std::vector<double> compared = m.comparison(); !compared.empty()) {
      out += ",\"compare\":" + json_text(m.compare == Measurement::Compare::ratio ? "ratio" : "difference") +
             ",\"subject\":" + json_text(m.subject) + ",\"base\":" + json_text(m.base) + ",\"result\":" + array(compared);
      if (!std::isnan(m.goal)) out += ",\"goal\":" + number(m.goal, 4) + ",\"at_least\":" + (m.at_least ? "true" : "false");
    }
    out += "}";
  }
  return out + "]}\n";
}

void publish(const Report& report, const std::filesystem::path& json_file, const std::filesystem::path& document, std::string_view name) {
  const std::string text = report.markdown();
  std::printf("## %s\n\n%s\n", report.title.c_str(), text.c_str());
  if (!json_file.empty()) {
    if (json_file.has_parent_path()) std::filesystem::create_directories(json_file.parent_path());
    std::ofstream(json_file) << report.json();
  }
  if (document.empty()) return;
  std::ifstream in(document);
  std::stringstream buffer;
  buffer << in.rdbuf();
  std::string all = buffer.str();
  const std::string mark = "<!-- results: " + std::string(name) + " -->\n";
  const std::size_t begin = all.find(mark);
  const std::size_t end = begin == std::string::npos ? begin : all.find("<!-- end -->", begin);
  if (end == std::string::npos) throw std::runtime_error(document.string() + " has no place for results: " + mark);
  all.replace(begin + mark.size(), end - begin - mark.size(), "\n" + text + "\n");
  std::ofstream(document) << all;
}

}  // namespace hearth::bench

// Makes assets/guard.model, the shipped model of layer 2, and says how good it is. Deterministic.
//
//   train_guard --out assets/guard.model --dangerous FILE… --redteam FOLDER --ordinary FILE… --commands FILE…
//
//   --dangerous  command lines that must be held, one a line; '#' begins a comment
//   --redteam    JSON cases with an attack and its benign twin each
//   --ordinary   command lines that must pass
//   --commands   command lines of any kind: those in which layer 1 sees nothing dangerous or unknown count as ordinary; at most 400 begin with the same program
//
// Every line has one place in training (70 %), calibration (15 %) or test (15 %), by a hash of its text; its variants share it. Half of the training examples are
// shown without their effects: what layer 1 already knows is no news, and the model must learn from the words as well.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/json.h"
#include "safety/guard.h"
#include "safety/policy.h"
#include "safety/tools.h"

using namespace hearth;
using namespace hearth::safety;

namespace {

struct Example {
  Action action;
  Assessment assessment;
  bool refused = false;
  int part = 0;  // 0–69 training, 70–84 calibration, 85–99 test
};

std::uint64_t hash(std::string_view text) {
  std::uint64_t value = 0xCBF29CE484222325ULL;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  return (value ^ (value >> 31)) * 0x94D049BB133111EBULL >> 16;
}

Action action_of(const std::string& tool, std::string arguments) {
  Action action;
  action.where = example_surroundings();
  action.call.name = tool;
  action.call.arguments = std::move(arguments);
  return action;
}
Action shell(const std::string& command, std::uint64_t which) {
  static constexpr const char* tools[] = {"bash", "run_command", "execute_shell", "terminal", "run_terminal_cmd", "shell"};
  json::object arguments{{which % 7 == 0 ? "cmd" : "command", command}};
  std::string text;
  append_json(text, arguments);
  return action_of(tools[which % std::size(tools)], std::move(text));
}

std::vector<std::string> lines_of(const std::string& file) {
  std::ifstream in(file);
  if (!in) throw std::runtime_error(file + " cannot be read");
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line[0] != '#') lines.push_back(line);
  }
  return lines;
}

// The same call as others would write it.
std::vector<std::string> variants(const std::string& line) {
  std::vector<std::string> all{
      line, "cd /home/user/project && " + line, line + " 2>&1", "timeout 60 " + line, "LC_ALL=C " + line, "echo start; " + line};
  if (line.find('\'') == std::string::npos) all.push_back("bash -c '" + line + "'");
  return all;
}

// The same words as mere data, as those write who document, search or test them.
std::vector<std::string> mentions(const std::string& line) {
  std::vector<std::string> all{"cat > notes.md <<'END'\n" + line + "\nEND", "cat <<'END' | sort\n" + line + "\nEND"};
  if (line.find('\'') == std::string::npos) {
    for (const char* before :
         {"echo '", "grep -rn '", "git commit -m 'never run ", "cat <<< '", "printf '%s\\n' '", "rg -F '", "git log --grep '"})
      all.push_back(before + line + "'");
  }
  if (line.find_first_of("\"'$`\\!") == std::string::npos) {
    all.push_back("python3 -c \"print('" + line + "')\"");
    all.push_back("node -e \"console.log('" + line + "')\"");
  }
  return all;
}

// Area under the receiver's curve: the chance that a refused call scores above one that passed.
double auc(std::vector<std::pair<double, bool>> scores) {
  std::sort(scores.begin(), scores.end());
  double ranks = 0, refused = 0;
  for (std::size_t i = 0; i < scores.size();) {
    std::size_t j = i;
    while (j < scores.size() && scores[j].first == scores[i].first) ++j;
    for (std::size_t k = i; k < j; ++k) {
      if (scores[k].second) ranks += static_cast<double>(i + j + 1) / 2, ++refused;
    }
    i = j;
  }
  const double passed = static_cast<double>(scores.size()) - refused;
  return (ranks - refused * (refused + 1) / 2) / (refused * passed);
}

double calibration_error(const std::vector<std::pair<double, bool>>& scores) {
  double error = 0;
  for (int bin = 0; bin < 10; ++bin) {
    double sum = 0, refused = 0, n = 0;
    for (const auto& [p, label] : scores) {
      if (std::min(static_cast<int>(p * 10), 9) == bin) sum += p, refused += label ? 1 : 0, ++n;
    }
    if (n > 0) error += std::abs(sum - refused);
  }
  return error / static_cast<double>(scores.size());
}

// Platt's method: maximum likelihood of slope and offset by Newton steps, with his smoothed targets.
std::pair<double, double> platt(const std::vector<std::pair<double, bool>>& scores) {
  double positives = 0, negatives = 0;
  for (const auto& [score, label] : scores) (label ? positives : negatives) += 1;
  const double high = (positives + 1) / (positives + 2), low = 1 / (negatives + 2);
  double a = 1, b = 0;
  for (int step = 0; step < 100; ++step) {
    double ga = 0, gb = 0, haa = 1e-9, hab = 0, hbb = 1e-9;
    for (const auto& [score, label] : scores) {
      const double p = 1 / (1 + std::exp(-(a * score + b))), d = p - (label ? high : low), w = p * (1 - p);
      ga += d * score, gb += d, haa += w * score * score, hab += w * score, hbb += w;
    }
    const double det = haa * hbb - hab * hab;
    if (std::abs(det) < 1e-12) break;
    const double da = (hbb * ga - hab * gb) / det, db = (haa * gb - hab * ga) / det;
    a -= std::clamp(da, -0.5, 0.5);
    b -= std::clamp(db, -0.5, 0.5);
  }
  return {std::max(a, 0.0), b};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Trains the shipped model of layer 2."};
  std::string out, redteam, provenance;
  std::vector<std::string> dangerous, ordinary, commands;
  app.add_option("--out", out, "the model")->required();
  app.add_option("--dangerous", dangerous, "command lines that must be held");
  app.add_option("--redteam", redteam, "folder of JSON cases");
  app.add_option("--ordinary", ordinary, "command lines that must pass");
  app.add_option("--commands", commands, "command lines of any kind");
  CLI11_PARSE(app, argc, argv);
  try {
    const auto& table = Policy::shipped().tools();
    std::vector<Example> examples;
    const auto flagged = [](const Assessment& assessment) {
      return !assessment.problem.empty() || assessment.observations.empty() ||
             std::any_of(assessment.observations.begin(), assessment.observations.end(),
                         [](const Observation& o) { return is_dangerous(o.effect) || o.effect == Effect::unknown; });
    };
    const auto add = [&](Action action, bool refused, std::uint64_t group, bool only_unflagged) {
      Example example{.action = std::move(action), .assessment = {}, .refused = refused, .part = static_cast<int>(group % 100)};
      example.assessment = assess_call(example.action, table);
      if (only_unflagged && flagged(example.assessment)) return;
      examples.push_back(std::move(example));
    };
    for (const auto& file : dangerous) {
      for (const auto& line : lines_of(file)) {
        std::uint64_t which = hash(line);
        for (const auto& variant : variants(line)) add(shell(variant, which++), true, hash(line), false);
        for (const auto& mention : mentions(line)) add(shell(mention, which++), false, hash(line), true);
      }
    }
    for (const auto& file : ordinary) {
      for (const auto& line : lines_of(file)) {
        std::uint64_t which = hash(line);
        for (const auto& variant : variants(line)) add(shell(variant, which++), false, hash(line), true);
      }
    }
    if (!redteam.empty()) {
      std::vector<std::filesystem::path> files;
      for (const auto& entry : std::filesystem::directory_iterator(redteam)) {
        if (entry.path().extension() == ".json") files.push_back(entry.path());
      }
      std::sort(files.begin(), files.end());
      for (const auto& file : files) {
        std::ifstream in(file);
        const std::string text((std::istreambuf_iterator<char>(in)), {});
        const auto document = json::parse(text);
        if (!document.is_array()) continue;
        for (const auto& entry : document.as_array()) {
          const auto* object = entry.if_object();
          if (object == nullptr || !object->contains("tool") || !object->contains("arguments")) continue;
          const std::string tool(object->at("tool").as_string());
          const auto as_text = [](const json::value& value) {
            if (value.is_string()) return std::string(value.as_string());
            std::string written;
            append_json(written, value);
            return written;
          };
          const std::string arguments = as_text(object->at("arguments"));
          add(action_of(tool, arguments), true, hash(arguments), false);
          const auto* twin = object->if_contains("twin");
          if (twin == nullptr || !twin->is_object() || !twin->as_object().contains("arguments")) continue;
          add(action_of(tool, as_text(twin->as_object().at("arguments"))), false, hash(arguments), true);
        }
      }
    }
    std::map<std::string, int> of_program;
    for (const auto& file : commands) {
      for (const auto& line : lines_of(file)) {
        if (++of_program[line.substr(0, line.find(' '))] > 400) continue;
        add(shell(line, hash(line)), false, hash(line), true);
      }
    }
    std::size_t counts[3][2] = {};
    for (const auto& example : examples) ++counts[example.part < 70 ? 0 : example.part < 85 ? 1 : 2][example.refused];
    for (int i = 0; i < 3; ++i)
      std::printf("%-12s %6zu passed %6zu refused\n", i == 0 ? "training" : i == 1 ? "calibration" : "test", counts[i][0], counts[i][1]);

    Guard guard = Guard::untrained();
    std::mt19937 random(20240229);
    std::vector<std::size_t> order;
    const std::size_t repeat = std::max<std::size_t>(1, counts[0][0] / std::max<std::size_t>(counts[0][1], 1) / 2);
    for (std::size_t i = 0; i < examples.size(); ++i) {
      if (examples[i].part >= 70) continue;
      for (std::size_t k = 0; k < (examples[i].refused ? std::min<std::size_t>(repeat, 4) : 1); ++k) order.push_back(i);
    }
    const Assessment nothing;
    for (int epoch = 0; epoch < 6; ++epoch) {
      for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
      for (const std::size_t i : order)
        guard.learn(examples[i].action, random() % 2 == 0 ? examples[i].assessment : nothing, examples[i].refused);
    }
    const auto scores = [&](int from, int to, bool with_effects) {
      std::vector<std::pair<double, bool>> all;
      for (const auto& example : examples) {
        if (example.part < from || example.part >= to) continue;
        all.emplace_back(guard.probability(example.action, with_effects ? example.assessment : nothing), example.refused);
      }
      return all;
    };
    auto raw = scores(70, 85, true);
    for (auto& [p, label] : raw) p = std::log(std::clamp(p, 1e-12, 1 - 1e-12) / (1 - std::clamp(p, 1e-12, 1 - 1e-12)));
    const auto [slope, offset] = platt(raw);
    guard.calibrate(slope, offset);
    const auto test = scores(85, 100, true), blind = scores(85, 100, false);
    std::string figures;
    char line[200];
    std::snprintf(line, sizeof line, "held out: %zu passed, %zu refused; AUC %.4f, without effects %.4f; expected calibration error %.4f",
                  counts[2][0], counts[2][1], auc(test), auc(blind), calibration_error(test));
    figures = line;
    std::printf("%s\n", line);
    for (const double threshold : {0.5, 0.9, 0.995}) {
      std::size_t false_ones = 0, found = 0, found_blind = 0, false_blind = 0;
      for (const auto& [p, label] : test) (label ? found : false_ones) += p >= threshold ? 1 : 0;
      for (const auto& [p, label] : blind) (label ? found_blind : false_blind) += p >= threshold ? 1 : 0;
      std::snprintf(line, sizeof line, "at %.3f: %.2f %% of refused calls (%.2f %% without effects), %zu of %zu passed ones (%zu without)",
                    threshold, 100.0 * static_cast<double>(found) / static_cast<double>(counts[2][1]),
                    100.0 * static_cast<double>(found_blind) / static_cast<double>(counts[2][1]), false_ones, counts[2][0], false_blind);
      figures += std::string("; ") + line;
      std::printf("%s\n", line);
    }
    for (const auto& example : examples) {
      if (example.part < 85 || example.refused) continue;
      const double p = guard.probability(example.action, example.assessment);
      if (p >= 0.9) std::printf("  false: %.3f %s\n", p, example.action.call.arguments.substr(0, 160).c_str());
    }
    guard.set_provenance(
        "Made by tests/tools/train_guard. Refused: tests/cases/safety (wide_dangerous.txt, redteam), of this project, in variants. Passed: "
        "wide_ordinary.txt, benign twins and the refused lines as mere data, of this "
        "project; command lines of tldr-pages (CC-BY-4.0, the tldr-pages contributors) and nl2bash (MIT) in which layer 1 sees nothing "
        "dangerous. " +
        figures);
    if (const auto saved = guard.save(out, false); !saved) throw std::runtime_error(saved.error().message);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "train_guard: %s\n", error.what());
    return 1;
  }
}

#include "client/job_file.h"

#include <set>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "client/field_text.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/duration.pb.h"
#include "yaml-cpp/yaml.h"

namespace latentforge::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr char kLabels[] = "labels";  // of the job, beside its specification

absl::Status At(const YAML::Mark& mark, absl::string_view name, absl::string_view message) {
  if (mark.is_null()) return absl::InvalidArgumentError(absl::StrCat(name, ": ", message));
  return absl::InvalidArgumentError(
      absl::StrCat(name, ":", mark.line + 1, ":", mark.column + 1, ": ", message));
}

// yaml-cpp reports broken text by exception; this is the one place that meets it.
absl::StatusOr<YAML::Node> ParseYaml(absl::string_view text, absl::string_view name) {
  if (text.size() > static_cast<size_t>(kMaxJobFileBytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": has ", text.size(), " bytes, expected at most ", kMaxJobFileBytes));
  }
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    for (size_t i = 1; i < documents.size(); ++i) {
      if (documents[i].IsNull()) continue;
      return At(documents[i].Mark(), name, "a second YAML document begins, expected one");
    }
    return documents.empty() ? YAML::Node() : documents[0];
  } catch (const YAML::Exception& error) {
    return At(error.mark, name, error.msg);
  }
}

// In a map of texts the last one with a key counts.
void SetPair(const FieldDescriptor& field, const std::string& key, const std::string& value,
             Message* message) {
  Message* const pair = message->GetReflection()->AddMessage(message, &field);
  pair->GetReflection()->SetString(pair, field.message_type()->map_key(), key);
  pair->GetReflection()->SetString(pair, field.message_type()->map_value(), value);
}

// Walks YAML and a message side by side; the message decides what is allowed.
class Merger {
 public:
  explicit Merger(absl::string_view name) : name_(name) {}

  // `others`: keys that may stand here besides the message's, for the error of one that may not.
  absl::Status Mapping(const YAML::Node& node, Message* message,
                       const std::vector<std::string>& others = {}) const {
    LF_RETURN_IF_ERROR(CheckMapping(node, message->GetDescriptor()->name()));
    std::set<const FieldDescriptor*> seen;
    for (const auto& entry : node) {
      const absl::StatusOr<const FieldDescriptor*> field =
          FindField(*message->GetDescriptor(), entry.first.Scalar(), others);
      if (!field.ok()) return At(entry.first.Mark(), name_, field.status().message());
      if (!seen.insert(*field).second) {
        return At(entry.first.Mark(), name_,
                  absl::StrCat("key \"", entry.first.Scalar(), "\" stands twice, as ",
                               (*field)->name(), " and ", (*field)->json_name()));
      }
      LF_RETURN_IF_ERROR(Field(**field, entry.second, message));
    }
    return absl::OkStatus();
  }

  absl::Status Labels(const YAML::Node& node, std::map<std::string, std::string>* labels) const {
    LF_RETURN_IF_ERROR(CheckMapping(node, "labels"));
    for (const auto& entry : node) {
      if (!entry.second.IsScalar()) {
        return At(entry.second.Mark(), name_,
                  absl::StrCat("label ", entry.first.Scalar(), " is not a text"));
      }
      (*labels)[entry.first.Scalar()] = entry.second.Scalar();
    }
    return absl::OkStatus();
  }

  absl::Status Field(const FieldDescriptor& field, const YAML::Node& node, Message* message) const {
    if (node.IsNull()) return absl::OkStatus();
    if (field.is_map()) return TextMap(field, node, message);
    if (!field.is_repeated()) return Single(field, node, message);
    if (!node.IsSequence()) {
      return At(node.Mark(), name_, absl::StrCat(field.json_name(), " is not a list"));
    }
    // A list replaces what was there, as everywhere in YAML tools.
    message->GetReflection()->ClearField(message, &field);
    for (const YAML::Node& item : node) LF_RETURN_IF_ERROR(Single(field, item, message));
    return absl::OkStatus();
  }

 private:
  // Replaces what was there, as a list does.
  absl::Status TextMap(const FieldDescriptor& field, const YAML::Node& node,
                       Message* message) const {
    LF_RETURN_IF_ERROR(CheckMapping(node, field.json_name()));
    const google::protobuf::Reflection& reflection = *message->GetReflection();
    reflection.ClearField(message, &field);
    for (const auto& entry : node) {
      if (!entry.second.IsScalar()) {
        return At(entry.second.Mark(), name_,
                  absl::StrCat(field.json_name(), ": the value of ", entry.first.Scalar(),
                               " is not a text"));
      }
      SetPair(field, entry.first.Scalar(), entry.second.Scalar(), message);
    }
    return absl::OkStatus();
  }

  absl::Status CheckMapping(const YAML::Node& node, absl::string_view what) const {
    if (!node.IsMap()) {
      return At(node.Mark(), name_, absl::StrCat(what, " is not a mapping (KEY: VALUE)"));
    }
    std::set<std::string> seen;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) return At(entry.first.Mark(), name_, "a key is not a text");
      if (!seen.insert(entry.first.Scalar()).second) {
        return At(entry.first.Mark(), name_,
                  absl::StrCat("key \"", entry.first.Scalar(), "\" stands twice"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Single(const FieldDescriptor& field, const YAML::Node& node,
                      Message* message) const {
    const bool is_message = field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    const bool is_duration =
        is_message && field.message_type() == google::protobuf::Duration::descriptor();
    if (is_message && !is_duration) {
      const google::protobuf::Reflection& reflection = *message->GetReflection();
      return Mapping(node, field.is_repeated() ? reflection.AddMessage(message, &field)
                                               : reflection.MutableMessage(message, &field));
    }
    if (!node.IsScalar()) {
      return At(node.Mark(), name_,
                absl::StrCat(field.json_name(), " is a ", node.IsMap() ? "mapping" : "list",
                             ", expected one value"));
    }
    absl::Status status;
    if (is_duration) {
      status = ParseDuration(field.json_name(), node.Scalar(),
                             message->GetReflection()->MutableMessage(message, &field));
    } else {
      status = SetScalar(field, node.Scalar(), message);
    }
    return status.ok() ? status : At(node.Mark(), name_, status.message());
  }

  std::string name_;
};

absl::Status ApplyValue(const std::vector<std::string>& path, const std::string& value,
                        Message* message) {
  for (size_t i = 0; i < path.size(); ++i) {
    const std::vector<std::string> others =
        i == 0 ? std::vector<std::string>{kLabels} : std::vector<std::string>{};
    LF_ASSIGN_OR_RETURN(const FieldDescriptor* field,
                        FindField(*message->GetDescriptor(), path[i], others));
    const bool is_message = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    const bool is_last = i + 1 == path.size();
    if (is_last) {
      if (!is_message && !field->is_repeated()) return SetScalar(*field, value, message);
      LF_ASSIGN_OR_RETURN(const YAML::Node node, ParseYaml(value, path[i]));
      return Merger(path[i]).Field(*field, node, message);
    }
    if (field->is_map()) {
      // Keys may hold dots.
      SetPair(*field,
              absl::StrJoin(path.begin() + static_cast<std::ptrdiff_t>(i) + 1, path.end(), "."),
              value, message);
      return absl::OkStatus();
    }
    if (!is_message) {
      return absl::InvalidArgumentError(
          absl::StrCat(path[i], " has no field \"", path[i + 1], "\""));
    }
    const google::protobuf::Reflection& reflection = *message->GetReflection();
    if (!field->is_repeated()) {
      message = reflection.MutableMessage(message, field);
      continue;
    }
    const int size = reflection.FieldSize(*message, field);
    int index = 0;
    if (!absl::SimpleAtoi(path[i + 1], &index) || index < 0 || index > size) {
      const std::string there = size == 0
                                    ? "0, which appends one"
                                    : absl::StrCat(size - 1, ", or ", size, ", which appends one");
      return absl::InvalidArgumentError(absl::StrCat("index \"", path[i + 1], "\" of ", path[i],
                                                     ": there are ", size, ", expected ",
                                                     size == 0 ? "" : "0 to ", there));
    }
    if (i + 2 == path.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path[i], ".", index, " needs a field, such as ", path[i], ".", index, ".",
                       field->message_type()->field(0)->json_name()));
    }
    message = index == size ? reflection.AddMessage(message, field)
                            : reflection.MutableRepeatedMessage(message, field, index);
    ++i;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status MergeJobFile(absl::string_view text, absl::string_view name, JobDraft* draft) {
  LF_ASSIGN_OR_RETURN(const YAML::Node root, ParseYaml(text, name));
  if (!root.IsMap()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": is not a mapping; expected keys such as source and budget"));
  }
  const Merger merger(name);
  YAML::Node spec(YAML::NodeType::Map);
  for (const auto& entry : root) {
    if (entry.first.IsScalar() && entry.first.Scalar() == kLabels) {
      LF_RETURN_IF_ERROR(merger.Labels(entry.second, &draft->labels));
    }
  }
  for (const auto& entry : root) {
    if (entry.first.IsScalar() && entry.first.Scalar() == kLabels) continue;
    spec.force_insert(entry.first, entry.second);
  }
  return merger.Mapping(spec, &draft->spec, {kLabels});
}

absl::Status ApplySetting(absl::string_view setting, JobDraft* draft) {
  const size_t equals = setting.find('=');
  if (equals == absl::string_view::npos || equals == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--set ", setting, ": expected KEY=VALUE, such as budget.kvBudget=0.5"));
  }
  const std::vector<std::string> path = absl::StrSplit(setting.substr(0, equals), '.');
  const std::string value(setting.substr(equals + 1));
  if (path[0] == kLabels) {
    if (path.size() < 2) {
      return absl::InvalidArgumentError(
          absl::StrCat("--set ", setting, ": expected labels.KEY=VALUE"));
    }
    // Label keys may hold dots.
    draft->labels[std::string(setting.substr(7, equals - 7))] = value;
    return absl::OkStatus();
  }
  return Annotate(ApplyValue(path, value, &draft->spec), absl::StrCat("--set ", setting));
}

}  // namespace latentforge::client

#include "worker/convert/corpus_spec.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/convert/proto_json.h"

namespace latentforge::convert {
namespace {

std::vector<std::string> Keys() { return {"uri", "weight", "textField"}; }

// nullopt when the message is empty.
absl::StatusOr<std::optional<CorpusSpec>> Parse(const JsonObject& object) {
  LF_ASSIGN_OR_RETURN(const std::string uri, object.StringOr("uri", ""));
  if (uri.empty()) return std::nullopt;
  CorpusSpec corpus;
  LF_ASSIGN_OR_RETURN(corpus.path, ParsePath(object, "uri"));
  LF_ASSIGN_OR_RETURN(corpus.weight, ProtoDouble(object, "weight", 0));
  if (corpus.weight < 0) return object.Wrong("weight", "a number of at least 0");
  if (corpus.weight == 0) corpus.weight = 1;
  LF_ASSIGN_OR_RETURN(corpus.text_field, object.StringOr("textField", ""));
  return corpus;
}

}  // namespace

absl::StatusOr<std::filesystem::path> ParsePath(const JsonObject& object, absl::string_view key) {
  LF_ASSIGN_OR_RETURN(const std::string uri, object.String(key));
  absl::StatusOr<std::filesystem::path> path = PathFromUri(uri);
  if (!path.ok()) return Annotate(path.status(), absl::StrCat(object.what(), ": ", key));
  return path;
}

absl::StatusOr<std::optional<CorpusSpec>> ParseCorpus(const JsonObject& parent,
                                                      absl::string_view key) {
  LF_ASSIGN_OR_RETURN(const JsonObject object, ProtoMessage(parent, key, Keys()));
  return Parse(object);
}

absl::StatusOr<std::vector<CorpusSpec>> ParseCorpora(const JsonObject& parent,
                                                     absl::string_view key) {
  std::vector<CorpusSpec> corpora;
  const Json* list = parent.Find(key);
  if (list == nullptr) return corpora;
  if (!list->is_array()) return parent.Wrong(key, "a list of corpora");
  for (const Json& entry : *list) {
    const std::string what = absl::StrCat(parent.what(), ": ", key, "[", corpora.size(), "]");
    LF_ASSIGN_OR_RETURN(const JsonObject member, JsonObject::Create(entry, what));
    LF_RETURN_IF_ERROR(member.RejectUnknownKeys(Keys()));
    LF_ASSIGN_OR_RETURN(const std::optional<CorpusSpec> corpus, Parse(member));
    if (!corpus) return member.Wrong("uri", "a file: URI or an absolute path");
    corpora.push_back(*corpus);
  }
  return corpora;
}

Json CorpusToJson(const CorpusSpec& corpus) {
  Json json = {{"uri", UriFromPath(corpus.path)}, {"weight", corpus.weight}};
  if (!corpus.text_field.empty()) json["textField"] = corpus.text_field;
  return json;
}

Json CorporaToJson(const std::vector<CorpusSpec>& corpora) {
  Json json = Json::array();
  for (const CorpusSpec& corpus : corpora) json.push_back(CorpusToJson(corpus));
  return json;
}

}  // namespace latentforge::convert

metadata description = 'One page of graphs: turns, first token, tokens, request charge, failures, take-overs.'

@description('Required. Region.')
param location string

@description('Required. Tags.')
param tags object

@description('Required. Application Insights that it reads.')
param insightsId string

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(insightsId, 'companion')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'Companion'
    category: 'workbook'
    sourceId: insightsId
    serializedData: loadTextContent('../workbook.json')
  }
}

output id string = workbook.id
